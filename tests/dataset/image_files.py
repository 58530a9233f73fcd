"""Small image files for tests, in every layout that a data set may have."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Files = Sequence[tuple[str, bytes]]
"""The class and the encoded bytes of each image."""


def picture(number: int, format: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """Encode an image whose every channel tells its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels[size[1] // 4 : -size[1] // 4] = number
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def of_two_classes(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    return sorted((str(i % 2), picture(first + i)) for i in range(count))


def as_folders(root: Path, splits: Mapping[str, Files]) -> Path:
    for split, files in splits.items():
        for number, (name, data) in enumerate(files):
            path = root / split / name / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def as_parquet(root: Path, splits: Mapping[str, Files], rows: int = 3) -> Path:
    root.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, files in splits.items():
        half = len(files) // 2
        for shard, part in enumerate((files[:half], files[half:])):
            images = pa.array([{"bytes": data, "path": None} for _, data in part], kind)
            table = pa.table({"image": images, "label": pa.array([int(name) for name, _ in part], pa.int64())})
            pq.write_table(table, root / f"{split}-{shard:05d}-of-00002.parquet", row_group_size=rows)
    return root


def as_tar(root: Path, splits: Mapping[str, Files], labels: bool = True) -> Path:
    root.mkdir(parents=True)
    for split, files in splits.items():
        half = len(files) // 2
        for shard, part in enumerate((files[:half], files[half:])):
            with tarfile.open(root / f"set-{split}-{shard:06d}.tar", "w") as tar:
                for number, (name, data) in enumerate(part):
                    key = f"{number:04d}" if labels else f"{name}/{number:04d}"
                    members = [(f"{key}.png", data), *([(f"{key}.cls", name.encode())] if labels else [])]
                    for member, content in members:
                        info = tarfile.TarInfo(member)
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return root


LAYOUTS = {"folders": as_folders, "parquet": as_parquet, "tar": as_tar}
