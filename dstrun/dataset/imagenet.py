"""ImageNet, from class folders, Parquet shards or tar shards; its counts are known without it, for ``dstrun plan``."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from dstrun.config.option import expanded, option
from dstrun.dataset.images import check_counts
from dstrun.dataset.listed import Listed
from dstrun.system.trouble import ConfigError

CLASSES = 1000
TRAIN, TEST = 1_281_167, 50_000


@option
class ImageNet(Listed):
    """ImageNet, ILSVRC 2012 (Russakovsky et al., 2015), 224x224 crops; its 50,000 validation images are the test.

    ``root`` is a folder with ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``, or Parquet shards
    (``train-00000-of-00294.parquet``, ``validation-...``) or tar shards (``imagenet-train-000000.tar``); also one that
    holds such a folder as ``imagenet`` or ``data``. ``None`` is ``$DSTRUN_DATA`` if set, else ``data`` in the current
    folder. Without the images, ``dstrun plan`` still works.
    """

    image: ClassVar[tuple[int, int, int]] = (3, 224, 224)
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    flip: ClassVar[bool] = True

    shorter: ClassVar[int] = 256  # type: ignore[assignment]

    root: str | None = None
    augment: bool = True

    @property
    def augmentation(self) -> str:
        """Return ``resized_crop`` where images are augmented."""
        return "resized_crop" if self.augment else "none"

    @cached_property
    def place(self) -> Path:
        """Return the folder that holds the images: the first of those in which there are any."""
        from dstrun.dataset.listing import layout

        root = Path(expanded(self.root or os.environ.get("DSTRUN_DATA") or "data"))
        places = (root / "imagenet", root, root / "data")
        return next((place for place in places if place.is_dir() and layout(place, ("train",))), root)

    @property
    def _planned(self) -> bool:
        """Whether the published counts stand for images that are not here."""
        if self.root is not None or self.parts is not None:
            return False
        if self.class_subset is not None:
            raise ConfigError(f"dataset.class_subset can be counted only where the images are: {self.place} has none")
        return True

    @property
    def classes(self) -> int:
        """Count the classes."""
        return CLASSES if self._planned else super().classes

    @property
    def train_count(self) -> int:
        """Count the training images of the run."""
        if not self._planned:
            return super().train_count
        check_counts(TRAIN, self.limit, self.validation)
        return self.limit if self.limit is not None else TRAIN - self.validation

    @property
    def test_count(self) -> int:
        """Count the images to evaluate on."""
        return TEST if self._planned else super().test_count
