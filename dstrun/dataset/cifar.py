"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from Parquet shards, from the original pickles, or downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.dataset import parquet
from dstrun.dataset.published import Arrays, Published, Source
from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError


@option
class CIFAR10(Published):
    """CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes (Krizhevsky, 2009).

    ``root`` is a folder that holds Parquet shards (``train-*.parquet``, ``test-*.parquet``; also in a folder named
    after the data set) or the original pickles. ``None`` is ``$DSTRUN_DATA`` if set, else ``data`` in the current
    folder; missing pickles are downloaded there, unless ``download`` is false. Into a ``root`` that is given they are
    downloaded only if ``download`` is true.
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

    augment: bool = True

    def _here(self, root: Path) -> Source | None:
        places = (root / self.name, root)
        return next(filter(None, (self._parquet(place) or self._pickles(place) for place in places)), None)

    def _downloaded(self, root: Path) -> Source:
        return Source([root / self.folder / name for name in self.pickles], lambda: self._unpickle(root))

    def _fetch(self, folder: Path) -> str:
        import torchvision.datasets

        getattr(torchvision.datasets, self.reader)(folder, download=True)
        return self.folder

    def _lacks(self, root: Path) -> str:
        return f"neither it nor {root / self.name} has train-*.parquet or {self.folder}"

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
