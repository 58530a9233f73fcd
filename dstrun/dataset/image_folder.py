"""A folder of a user's own images, sorted into folders of their classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import OneOf, Within, expanded, option
from dstrun.dataset.cache import cached
from dstrun.dataset.images import permutation
from dstrun.dataset.listed import SAMPLED, Listed, statistics
from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.dataset.listing import Layout
    from dstrun.dataset.streaming import Streaming

Channels = tuple[Annotated[float, Within(0, 1)], ...] | None


@option
class ImageFolder(Listed):
    """Images in ``root/train/CLASS/`` and ``root/test/CLASS/`` (or ``val``), or in ``root/CLASS/`` alone.

    Parquet and tar shards work, too, as for ImageNet. A ``root`` without ``train`` is split by ``validation``. Images
    are resized to RGB squares of ``size`` pixels. ``augment`` is a random resized crop (``resized_crop``), a shift by
    up to 4 pixels (``shift``) or ``none``; the first two also flip horizontally, unless ``flip`` is false. ``mean`` and
    ``std`` are per channel, in units of 0..1; the default is that of 4,096 training images, computed once.
    """

    splits: ClassVar[tuple[str, ...]] = ("test", "val", "validation")

    root: str | None = None
    size: Annotated[int, Within(8, 1024)] = 224  # type: ignore[misc]
    augment: Annotated[str, OneOf("resized_crop", "shift", "none")] = "resized_crop"  # type: ignore[assignment]
    flip: bool = True
    mean: Channels = None  # type: ignore[assignment]
    std: Channels = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        Listed.__post_init__(self)
        if self.root is None:
            raise ConfigError("dataset=image_folder needs dataset.root=DIR, which holds train/CLASS/ or CLASS/")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != 3:
                raise ConfigError(f"dataset.{name}={[*value]} must have three values, of red, green and blue")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("dataset.mean and dataset.std go together: give both, or neither")
        if self.std is not None and not all(self.std):
            raise ConfigError(f"dataset.std={[*self.std]} must be above 0")
        if self.augment == "none" and not self.flip:
            raise ConfigError("dataset.flip=false makes no sense with dataset.augment=none, which mirrors nothing")

    @property
    def image(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Return channels, height and width."""
        return 3, self.size, self.size

    @property
    def shorter(self) -> int:
        """Return to how many pixels the shorter side is resized: more than the size where training crops."""
        return round(self.size * 256 / 224) if self.augment == "resized_crop" else self.size

    @property
    def augmentation(self) -> str:
        """Return how training images are augmented."""
        return self.augment

    @property
    def place(self) -> Path:
        """Return the folder."""
        return Path(expanded(self.root or ""))

    def _layouts(self) -> tuple[Layout, Layout | None] | None:
        from dstrun.dataset.listing import Layout, class_folders, from_folders

        found = super()._layouts()
        if found is not None or not self.place.is_dir():
            return found
        names = class_folders(self.place)
        return (Layout(names, lambda wanted: from_folders(self.place, wanted)), None) if names else None

    def _statistics(self, loader: Streaming) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what was given, or what the training images have."""
        if self.mean is not None and self.std is not None:
            return self.mean, self.std

        def measure() -> dict[str, np.ndarray]:
            sampled = np.sort(permutation(loader.train_count)[:SAMPLED])
            return {"statistics": np.array(statistics(loader.decoded(sampled)[0]))}

        key = self._key(f"{self.damaged} {self.limit} {self.validation}")
        mean, std = cached("statistics", key, {"statistics": ((2, 3), np.float64)}, measure)["statistics"].tolist()
        return tuple(mean), tuple(std)
