"""Which images there are: files in class folders, members of tar shards, rows of Parquet shards. None is decoded.

F files, N images.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dstrun.config.option import nearest
from dstrun.dataset import parquet
from dstrun.dataset.cache import remembered
from dstrun.system.bounded import piece
from dstrun.system.trouble import ConfigError, why

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm")
"""By which files and members are known to be images."""
HEADER_BYTES = 1 << 20
"""Of a header in a tar shard."""
LABEL_BYTES = 32
"""Of a label in a tar shard."""


class Place(NamedTuple):
    """Where an encoded image is: ``length`` bytes of a file from ``start`` on; of Parquet, row group and row there."""

    path: str
    start: int
    length: int


@dataclass(frozen=True)
class Listing:
    """The images of a split, class after class as far as files are.

    Attributes:
        folder: that names are relative to.
        names: of the files, (F,) bytes.
        file: of each image, (N,) an index into ``names``.
        start, length: of each image, (N,) int64, as ``Place`` has them.
        label: of each image, (N,) an index into ``classes``.
        classes: their names.
        stray: files that are no images by their names.
        group: of each image of Parquet shards, (N,) which row group it is in, counted over all; else ``None``.
        group_bytes: of each row group.
    """

    folder: Path
    names: np.ndarray
    file: np.ndarray
    start: np.ndarray
    length: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    stray: tuple[str, ...] = ()
    group: np.ndarray | None = None
    group_bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def place(self, index: int) -> Place:
        """Return where an image is."""
        path = os.path.join(os.fsencode(self.folder), bytes(self.names[self.file[index]]))
        return Place(os.fsdecode(path), int(self.start[index]), int(self.length[index]))

    def take(self, kept: np.ndarray) -> Listing:
        """Keep the images (count,) int64 asked for, in their order."""
        group = None if self.group is None else self.group[kept]
        columns = (self.file, self.start, self.length, self.label)
        file, start, length, label = (column[kept] for column in columns)
        return replace(self, file=file, start=start, length=length, label=label, group=group)

    def of_classes(self, classes: Sequence[str]) -> Listing:
        """Keep the images of some classes, and number these in the order given."""
        number = {name: i for i, name in enumerate(classes)}
        renamed = np.array([number.get(name, -1) for name in self.classes], np.int64)
        label = renamed[self.label]
        kept = np.flatnonzero(label >= 0)
        return replace(self, label=label, classes=tuple(classes)).take(kept)

    def digest(self) -> str:
        """Digest names, sizes and labels, which is what can be had of a million files: SHA-256 in hexadecimal."""
        whole = sha256(b"\0".join(self.names.tolist()))
        for column in (self.file, self.start, self.length, self.label):
            whole.update(np.ascontiguousarray(column, np.int64).data)
        whole.update("\0".join(self.classes).encode(errors="surrogateescape"))
        return whole.hexdigest()


def ordered(names: Sequence[str]) -> list[str]:
    """Sort the names of classes: by number where all are numbers, else as text."""
    return sorted(names, key=int) if all(re.fullmatch(r"\d{1,9}", name) for name in names) else sorted(names)


def class_folders(folder: Path) -> list[str]:
    """Name the folders in a folder, in order, but hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {why(error)}") from error


def from_folders(folder: Path, classes: Sequence[str]) -> Listing:
    """List the files of class folders and of the folders in these, in the order of their names.

    Args:
        folder: that holds the class folders.
        classes: names of those to list.

    Raises:
        ConfigError: a folder cannot be read, or holds no image.
    """
    prefix = len(os.path.join(folder, ""))
    names: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    stray: list[str] = []
    for label, name in enumerate(classes):
        found = []
        try:
            for entry in _files(folder / name):
                if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    found.append((os.fsencode(entry.path[prefix:]), entry.stat().st_size))
                else:
                    stray.append(entry.path)
        except OSError as error:
            raise ConfigError(f"{error.filename or folder / name} cannot be read: {why(error)}") from error
        if not found:
            raise ConfigError(f"{folder / name} holds no image ({', '.join(SUFFIXES)}): remove it, or fetch it again")
        for path, size in sorted(found):
            names.append(path)
            sizes.append(size)
            labels.append(label)
    count = len(names)
    return Listing(
        folder, np.array(names), np.arange(count), np.zeros(count, np.int64), np.array(sizes, np.int64),
        np.array(labels, np.int64), tuple(classes), tuple(stray),
    )  # fmt: skip


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder and the folders in it, but what is hidden."""
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


def tar_shards(folder: Path, split: str) -> list[Path]:
    """List the tar shards of a split, ``imagenet-train-000000.tar``, in order; empty where there are none.

    Raises:
        ConfigError: a number is missing.
    """
    found = sorted(path for path in folder.glob(f"*{split}*.tar"))
    numbers = [re.search(r"(\d+)\.tar$", path.name) for path in found]
    there = {int(match[1]) for match in numbers if match}
    if there and len(there) == len(found) and len(there) != max(there) - min(there) + 1:
        missing = next(n for n in range(min(there), max(there)) if n not in there)
        raise ConfigError(f"{folder} has no shard {missing} of {split}: {found[0].name} to {found[-1].name} are there")
    return found


def from_tars(folder: Path, files: Sequence[Path]) -> Listing:
    """List the images in tar shards: ``KEY.jpg`` beside ``KEY.cls``, its label, as WebDataset has it, or class folders.

    Raises:
        ConfigError: a shard cannot be read, or says of an image no class.
    """
    key = sha256()
    for path in files:
        try:
            info = path.stat()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {why(error)}") from error
        key.update(f"{path.name} {info.st_size} {info.st_mtime_ns}\n".encode(errors="surrogateescape"))
    # A million headers take minutes.
    found = remembered("shards", key.hexdigest(), lambda: _tar_columns(files))
    file, start, length, label = found["columns"]
    return Listing(folder, _names(folder, files), file, start, length, label, tuple(found["classes"].tolist()))


def _tar_columns(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read the headers of tar shards: (4, N) shard, first byte, length and label of each image; names of classes."""
    found: list[tuple[int, int, int, str]] = []
    for number, path in enumerate(files):
        images: dict[str, tuple[int, int, str]] = {}
        labels: dict[str, str] = {}
        for name, start, length in _members(path):
            parent, _, base = name.rpartition("/")
            key = f"{parent}/{base.partition('.')[0]}"
            if base.lower().endswith(SUFFIXES):
                if key in images:
                    raise ConfigError(f"{path}: {name} is in it twice")
                images[key] = start, length, parent.rpartition("/")[2]
            elif base.endswith(".cls"):
                labels[key] = _label(path, name, start, length)
        for key, (start, length, parent) in images.items():
            label = labels.get(key, "" if labels else parent)
            if not label:
                raise ConfigError(f"{path}: {key.lstrip('/')} has neither a member .cls with its label nor a folder")
            found.append((number, start, length, label))
    classes = ordered(list({label for *_, label in found}))
    index = {name: i for i, name in enumerate(classes)}
    rows = np.array([(file, start, length, index[label]) for file, start, length, label in found], np.int64)
    return {"columns": rows.reshape(-1, 4).T.copy(), "classes": np.array(classes, np.str_)}


class _Headers:
    """A tar file of which only headers are read, so that none can ask for more memory than a header takes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, first byte and length of every plain file in a shard."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[arg-type]
            for member in tar:
                if member.isreg() and not member.issparse():
                    yield member.name, member.offset_data, member.size
            if piece(path, tar.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # else it ends as it should
                raise ConfigError(f"{path} is cut off, or damaged at byte {tar.offset:,}: fetch it again")
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read as tar, fetch it again: {why(error)}") from error


def _label(path: Path, name: str, start: int, length: int) -> str:
    text = piece(path, start, min(length, LABEL_BYTES + 1)).decode(errors="replace").strip()
    if not re.fullmatch(r"[\w.-]{1,32}", text):
        raise ConfigError(f"{path}: {name} holds {text[:20]!r}, which is not a label")
    return text


def from_parquet(folder: Path, files: Sequence[Path], label_columns: Sequence[str] = ("label",)) -> Listing:
    """List the rows of Parquet shards by their labels.

    Raises:
        ConfigError: a shard cannot be read, or its columns are others; it names the file.
    """
    parts, group_bytes = [], []
    for number, path in enumerate(files):
        for group, (labels, size) in enumerate(parquet.labels(path, label_columns)):
            count = len(labels)
            rows = np.arange(count)
            which = len(group_bytes)
            parts.append(np.stack([np.full(count, number), np.full(count, group), rows, labels, np.full(count, which)]))
            group_bytes.append(size)
    file, group, row, label, which = np.concatenate(parts, 1) if parts else np.empty((5, 0), np.int64)
    there = np.unique(label)
    if len(there) and there[0] < 0:
        raise ConfigError(f"{files[0]}: a label is {there[0]}, as in test sets without labels: it must be 0 or more")
    return Listing(
        folder, _names(folder, files), file, group, row, np.searchsorted(there, label), tuple(map(str, there)),
        (), which, np.array(group_bytes, np.int64),
    )  # fmt: skip


def _names(folder: Path, files: Sequence[Path]) -> np.ndarray:
    return np.array([os.fsencode(path.relative_to(folder)) for path in files])


class Layout(NamedTuple):
    """How the images of a split lie: the names of its classes, and what lists the images of those asked for."""

    classes: list[str]
    read: Callable[[Sequence[str]], Listing]


def layout(place: Path, splits: Sequence[str]) -> Layout | None:
    """Find a split in a folder: class folders, Parquet or tar shards; ``None`` where none of its names is there.

    Args:
        place: the folder.
        splits: names that the split may have, the preferred first.

    Raises:
        ConfigError: something is there under such a name that cannot be read.
    """
    for split in splits:
        if (place / split).is_dir():
            if classes := class_folders(place / split):
                return Layout(classes, lambda wanted, at=place / split: from_folders(at, wanted))
            if flat := _flat(place / split):
                raise ConfigError(
                    f"{place / split} holds images ({flat}) and no class folders, so that their classes are not known: "
                    "move each into the folder of its class, named as those of training"
                )
        makers: tuple[tuple[list[Path], Any], ...] = (
            (parquet.shards(place, split), from_parquet),
            (tar_shards(place, split), from_tars),
        )
        for files, make in makers:
            if files:
                listing: Listing = make(place, files)
                return Layout(list(listing.classes), listing.of_classes)
    return None


def _flat(folder: Path) -> str | None:
    with os.scandir(folder) as entries:
        return next((entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES)), None)


def chosen(classes: Sequence[str], asked: tuple[str, ...] | int | None, key: str) -> list[str]:
    """Choose classes: the first of them, those named, or all; always in their own order.

    Raises:
        ConfigError: there are fewer, or none of that name.
    """
    every = ordered(classes)
    if asked is None:
        return every
    if isinstance(asked, int):
        if asked > len(every):
            raise ConfigError(f"{key}={asked} must be at most {len(every)}, the number of classes")
        return every[:asked]
    for name in asked:
        if name not in every:
            raise ConfigError(f"{key}: {name} is not a class here{nearest(name, every)}")
    return [name for name in every if name in set(asked)]
