"""Labelled images in Parquet shards, in the column layout of dataset hubs.

``train-00000-of-00002.parquet`` says how many shards its split has. A row is an image, ``img`` or ``image``, a
struct of ``bytes`` (a PNG or JPEG file) and ``path``, and a whole-number label.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError

IMAGE_COLUMNS = ("img", "image")
GROUP_BYTES = 1 << 31
"""Of the columns of a row group once uncompressed."""
ENCODED = 1 << 16
"""Bytes that an encoded image may have besides four a value."""
CHUNK = 1024
"""Rows of small images that are decoded at once."""
FEW = 16
"""Rows of large images that are read at once."""


def shards(folder: Path, split: str) -> list[Path]:
    """List the shards of a split in order; empty where there are none.

    Raises:
        ConfigError: a shard that the names of the others promise is missing.
    """
    found = sorted(folder.glob(f"{split}-*.parquet"))
    there = [re.match(r"(.+-)(\d+)-of-(\d+)", path.name) for path in found]
    names = {match[0] for match in there if match}
    for match in filter(None, there):
        for number in range(int(match[3])):
            name = f"{match[1]}{number:0{len(match[2])}d}-of-{match[3]}"
            if name not in names:
                raise ConfigError(
                    f"{folder / name}.parquet is missing: {match.string} says that there are {int(match[3])}"
                )
    return found


def read(
    files: Sequence[Path], count: int, image: tuple[int, int, int], classes: int, label_columns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the images and labels of a split, a row group at a time.

    Args:
        files: the shards.
        count: images that there must be.
        image: shape of each, (3, H, W).
        classes: labels must be in [0, classes).
        label_columns: names of the label, the preferred first.

    Returns:
        (count, 3, H, W) uint8 and (count,) int64.

    Raises:
        ConfigError: a shard is unreadable, an image does not decode to ``image``, a label is out of range, or there
            are too few or too many images; it names the file.
    """
    import pyarrow.parquet

    rows = {}
    for path in files:
        with _reading(path):
            rows[path] = pyarrow.parquet.read_metadata(path).num_rows
    if sum(rows.values()) != count:
        parts = ", ".join(f"{path} has {n}" for path, n in rows.items())
        raise ConfigError(f"{parts}: {sum(rows.values())} images where there must be {count}")
    x, y = np.empty((count, *image), np.uint8), np.empty(count, np.int64)
    position = 0
    for path in files:
        first = position
        for pictures, labels in _row_groups(path, label_columns, ENCODED + 4 * math.prod(image)):
            for picture, label in zip(pictures, labels, strict=True):
                where = f"{path}: image {position - first}"
                x[position] = _decode(where, picture, image)
                if label is None or not 0 <= label < classes:
                    raise ConfigError(f"{where} has the label {label}, which must be in [0, {classes - 1}]")
                y[position] = label
                position += 1
    return x, y


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn a failure to read a Parquet file into a sentence that names it."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} cannot be read as Parquet, fetch it again: {reason}") from error


def _row_groups(path: Path, label_columns: Sequence[str], limit: int) -> Iterator[tuple[list[Any], list[int | None]]]:
    """Return the encoded images and the labels of one row group after the other, so that memory stays bounded."""
    file, picture, label = _opened(path, label_columns)
    with file:
        for number in range(file.num_row_groups):
            _group_bytes(path, file, number)
            with _reading(path):
                batches = file.iter_batches(CHUNK, row_groups=[number], columns=[f"{picture}.bytes", label])
            while True:
                with _reading(path):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    _check_sizes(path, batch.column(batch.schema.get_field_index(picture)), limit)
                    pair = (
                        batch.column(batch.schema.get_field_index(picture)).to_pylist(),
                        batch.column(batch.schema.get_field_index(label)).to_pylist(),
                    )
                yield pair


def _opened(path: Path, label_columns: Sequence[str]) -> tuple[Any, str, str]:
    """Open a shard, and name its columns of images and labels."""
    import pyarrow
    import pyarrow.parquet

    with _reading(path):
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
    picture = _column(path, schema.names, "image", IMAGE_COLUMNS)
    label = _column(path, schema.names, "label", label_columns)
    kind = schema.field(picture).type
    if not (pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise ConfigError(f"{path}: the column {picture} is {kind}, not a struct of bytes and path")
    if not pyarrow.types.is_integer(schema.field(label).type):
        raise ConfigError(f"{path}: the column {label} is {schema.field(label).type}, not a whole number")
    return file, picture, label


def _group_bytes(path: Path, file: Any, number: int) -> int:
    """Count the bytes of a row group once uncompressed, as it says, and refuse one that does not fit."""
    with _reading(path):
        found = file.metadata.row_group(number)
        size = sum(found.column(i).total_uncompressed_size for i in range(found.num_columns))
    if size > GROUP_BYTES:
        raise ConfigError(f"{path}: row group {number} claims to have {size:,} bytes: write smaller row groups")
    return size


def labels(path: Path, label_columns: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the labels (rows,) int64 of every row group of a shard, and its bytes once uncompressed.

    Raises:
        ConfigError: it is unreadable, has other columns, or a row without a label.
    """
    file, _, label = _opened(path, label_columns)
    with file:
        for number in range(file.num_row_groups):
            size = _group_bytes(path, file, number)
            with _reading(path):
                column = file.read_row_group(number, columns=[label], use_threads=False).column(0)
            if column.null_count:
                raise ConfigError(f"{path}: an image in row group {number} has no label")
            yield column.to_numpy().astype(np.int64), size


def encoded(path: str, number: int, limit: int) -> list[bytes | None]:
    """Read the encoded images of a row group.

    Args:
        path: of the shard.
        number: of the row group.
        limit: bytes that one may have.

    Raises:
        ConfigError: it is unreadable, or too large.
    """
    file, picture, _ = _opened(Path(path), ("label",))
    found: list[bytes | None] = []
    size = 0
    with file, _reading(Path(path)):
        _group_bytes(Path(path), file, number)
        for batch in file.iter_batches(FEW, row_groups=[number], columns=[f"{picture}.bytes"], use_threads=False):
            _check_sizes(Path(path), batch.column(0), limit)
            found += batch.column(0).field("bytes").to_pylist()
            size += batch.nbytes
            if size > GROUP_BYTES:  # a dictionary may repeat an image for free
                raise ConfigError(
                    f"{path}: row group {number} has more than {GROUP_BYTES:,} bytes: write smaller row groups"
                )
    return found


def _check_sizes(path: Path, pictures: Any, limit: int) -> None:
    """Refuse an encoded image far larger than its pixels before it is copied; a dictionary may repeat it for free."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # whose functions are made when it is imported
    longest = compute.max(compute.binary_length(pictures.field("bytes"))).as_py()
    if longest is not None and longest > limit:
        raise ConfigError(f"{path}: an image is a file of {longest:,} bytes, more than {limit:,}")


def _column(path: Path, there: Sequence[str], what: str, names: Sequence[str]) -> str:
    """Choose the first of ``names`` that is there."""
    for name in names:
        if name in there:
            return name
    raise ConfigError(f"{path} has no {what} column {' or '.join(names)}: its columns are {', '.join(there)}")


def _decode(where: str, picture: dict[str, Any] | None, image: tuple[int, int, int]) -> np.ndarray:
    """Decode a PNG or JPEG to (3, H, W) uint8; nothing is converted or resized."""
    from PIL import Image

    encoded = picture["bytes"] if picture else None
    if not encoded:
        raise ConfigError(f"{where} has no bytes")
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as found:
            size, mode = found.size, found.mode
            if size == (image[2], image[1]) and mode == "RGB":
                return np.asarray(found).transpose(2, 0, 1)
    except Exception as error:  # A damaged image can raise nearly anything, and all of it means: not an image.
        raise ConfigError(f"{where} cannot be decoded as PNG or JPEG") from error
    raise ConfigError(f"{where} is {size[0]}x{size[1]} {mode}, not {image[2]}x{image[1]} RGB")
