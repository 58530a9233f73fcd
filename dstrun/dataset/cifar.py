"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from Parquet shards, from the original pickles, or downloaded."""

from __future__ import annotations

import http.client
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dstrun.dataset import parquet
from dstrun.dataset.cache import cached, checksum
from dstrun.dataset.images import Dataset, Images
from dstrun.option import ConfigError, expanded, nearest, option

TIMEOUT_S = 10.0
"""How long a download waits for the network to say anything."""

Arrays = dict[str, np.ndarray]


class Source(NamedTuple):
    """Files that hold a data set, and how to decode them."""

    files: list[Path]
    decode: Callable[[], Arrays]


@option
class CIFAR10(Dataset):
    """CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes (Krizhevsky, 2009).

    ``root`` is a folder that holds Parquet shards (``train-*.parquet``, ``test-*.parquet``; also in a folder named
    after the data set) or the original pickles. It is ``$DSTRUN_DATA``, else ``data`` in the current folder, if
    ``None``; there the pickles are downloaded where they are missing, unless ``download`` is false. A folder named by
    ``root`` is downloaded into only if ``download`` is true.
    """

    name: ClassVar[str] = "cifar10"
    image: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    classes: ClassVar[int] = 10
    train_count: ClassVar[int] = 50_000
    test_count: ClassVar[int] = 10_000
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)
    flip: ClassVar[bool] = True
    label_columns: ClassVar[tuple[str, ...]] = ("label",)
    reader: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    pickles: ClassVar[tuple[str, ...]] = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

    root: str | None = None
    download: bool | None = None
    augment: bool = True

    def load(self, cache: Path | None = None) -> Images:
        """Load the images, decoded once and then memory-mapped from the cache.

        Args:
            cache: the folder for decoded images; see ``dstrun.dataset.cache.cached``.

        Raises:
            ConfigError: no data set is found or can be downloaded; a file of it is missing, damaged or mislabelled;
                the cache folder cannot be written.
        """
        files, decode = self._source()
        source = checksum(files)
        return self.choose(cached(self.name, source, self.shapes(), decode, cache), source)

    def check(self) -> None:
        """Check that the files are here, or may be downloaded.

        Raises:
            ConfigError: in the words of ``load``.
        """
        self._source(download=False)

    def found(self) -> str | None:
        """Return the checksum of the files where they are; ``None`` where they are not, or not whole."""
        try:
            source = self._here(self._root)
            return checksum(source.files) if source else None
        except ConfigError:
            return None

    @property
    def _root(self) -> Path:
        return Path(expanded(self.root or os.environ.get("DSTRUN_DATA") or "data"))

    def _here(self, root: Path) -> Source | None:
        places = (root / self.name, root)
        return next(filter(None, (self._parquet(place) or self._pickles(place) for place in places)), None)

    def _source(self, download: bool = True) -> Source:
        """Find the data set, or download it where ``download`` says so."""
        root = self._root
        may_download = self.download if self.download is not None else self.root is None
        if not root.is_dir() and not may_download:
            if self.root is None:
                raise ConfigError(
                    f"{root} is no folder and dataset.download=false: set dataset.root=DIR or $DSTRUN_DATA"
                )
            siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
            raise ConfigError(f"dataset.root={root} is no folder{nearest(root.name, siblings)}")
        if found := self._here(root):
            return found
        if may_download:
            if download:
                self._download(root)
            return Source([root / self.folder / name for name in self.pickles], lambda: self._unpickle(root))
        raise ConfigError(
            f"{root} holds no {self.name}: neither it nor {root / self.name} has train-*.parquet or {self.folder}; "
            "dataset.download=true downloads it"
        )

    def _parquet(self, place: Path) -> Source | None:
        """Find Parquet shards of both splits."""
        splits = {split: parquet.shards(place, split) for split in ("train", "test")}
        if not any(splits.values()):
            return None
        for split, files in splits.items():
            if not files:
                raise ConfigError(f"{place} has no {split}-*.parquet")

        def decode() -> Arrays:
            arrays = {}
            for split, files in splits.items():
                count = self.train_count if split == "train" else self.test_count
                x, y = parquet.read(files, count, self.image, self.classes, self.label_columns)
                for label, n in enumerate(np.bincount(y, minlength=self.classes)):
                    if n != count // self.classes:
                        raise ConfigError(
                            f"{', '.join(map(str, files))}: mislabelled, class {label} has {n} images where "
                            f"{self.name} has {count // self.classes}"
                        )
                arrays |= {f"{split}_x": x, f"{split}_y": y}
            return arrays

        return Source([*splits["train"], *splits["test"]], decode)

    def _pickles(self, place: Path) -> Source | None:
        """Find the original pickles."""
        if not (place / self.folder).is_dir():
            return None
        files = [place / self.folder / name for name in self.pickles]
        for path in files:
            if not path.is_file():
                raise ConfigError(f"{path} is missing: remove {path.parent} and download {self.name} again")
        return Source(files, lambda: self._unpickle(place))

    def _unpickle(self, place: Path) -> Arrays:
        """Read the original pickles, once their checksums show that they are what they say."""
        import torchvision.datasets
        from torchvision.datasets.utils import check_integrity

        reader: Any = getattr(torchvision.datasets, self.reader)
        known = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
        for name, md5 in known:
            path = place / self.folder / name
            if not check_integrity(str(path), md5):
                raise ConfigError(f"{path} is missing or damaged: remove {path.parent} and download {self.name} again")
        arrays = {}
        for split in ("train", "test"):
            found = reader(place, train=split == "train")
            arrays[f"{split}_x"] = found.data.transpose(0, 3, 1, 2)
            arrays[f"{split}_y"] = np.asarray(found.targets, np.int64)
        return arrays

    def _download(self, root: Path) -> None:
        """Download the original pickles into ``root``; leave nothing behind where that fails."""
        import tarfile

        import torchvision.datasets

        # A folder that exists already, so that a failure need not remove one it made; on the same disk, so that
        # moving is a rename.
        beside = next(p for p in (root, *root.absolute().parents) if p.is_dir())
        try:
            with _limited(), tempfile.TemporaryDirectory(dir=beside, prefix=".download-") as temporary:
                getattr(torchvision.datasets, self.reader)(temporary, download=True)
                root.mkdir(parents=True, exist_ok=True)
                try:
                    os.rename(Path(temporary, self.folder), root / self.folder)
                except OSError:
                    # Another run that downloaded at the same time was first.
                    if self._pickles(root) is None:
                        raise
        except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"{self.name} could not be downloaded into {root} ({reason}): dataset=digits works offline, "
                "dataset.root=DIR uses a copy"
            ) from error


class CIFAR100(CIFAR10):
    """CIFAR-100: 60,000 colour images of 32x32 pixels in 100 classes (Krizhevsky, 2009); settings as ``CIFAR10``."""

    name = "cifar100"
    classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    label_columns = ("fine_label", "label")
    reader = "CIFAR100"
    folder = "cifar-100-python"
    pickles = ("train", "test")


@contextmanager
def _limited() -> Iterator[None]:
    """Limit what a download may do where torchvision has no setting: stay silent, and write outside its folder."""
    import tarfile

    tar: Any = tarfile.TarFile
    before = socket.getdefaulttimeout(), getattr(tar, "extraction_filter", None)
    socket.setdefaulttimeout(TIMEOUT_S)
    if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; torchvision 0.26 names none
        tar.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before[0])
        tar.extraction_filter = before[1]
