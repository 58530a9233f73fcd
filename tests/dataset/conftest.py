from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def encode(pixels: np.ndarray, format: str = "PNG") -> bytes:
    """Encode (H, W, 3), or (H, W) for grey, as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def write(
    path: Path,
    images: Sequence[np.ndarray | bytes | None],
    labels: Sequence[int | None],
    *,
    image: str = "img",
    label: str = "label",
    format: str = "PNG",
    more: dict[str, Sequence[Any]] | None = None,
) -> Path:
    """Write a shard in the layout of dataset hubs, with row groups of 7."""
    files = [encode(i, format) if isinstance(i, np.ndarray) else i for i in images]
    structs = [{"bytes": b, "path": f"{n}.png"} for n, b in enumerate(files)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array(structs, kind), label: pa.array(labels, pa.int64()), **(more or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


@pytest.fixture
def shard() -> Callable[..., Path]:
    return write
