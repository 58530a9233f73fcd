"""Data sets not written for dstrun: any map-style ``Dataset`` of images and labels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

from dstrun.config.option import Above, AtLeast, option
from dstrun.config.plain import call, resolved, settings
from dstrun.config.written import arguments
from dstrun.dataset.images import Dataset, Images, check_counts
from dstrun.dataset.listed import RESIDENT_BYTES, statistics
from dstrun.system.lazy import np
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.dataset.loader import Loader

READ_TWICE = 16
"""Images that are asked for a second time, to find out whether they change."""


@option
class Plain(Dataset):
    """A data set called with its settings, once for its training images and once for its test images.

    It is called with ``train=True`` and ``train=False`` if it takes ``train``, else with ``split="train"`` and
    ``split="test"`` if it takes ``split``; ``train`` and ``test`` hold other settings by which the two differ. Images
    are PIL's, or arrays or tensors: uint8, or of 0..1 in floating point. All are read once and kept in memory, so that
    what is random goes into ``augment``: ``true`` shifts, and mirrors where ``flip`` is; or a class or function that is
    called with a tensor (C, H, W) of each training image. ``mean`` and ``std`` are of each channel, in units of 0..1;
    those of the training images where they are not given.
    """

    part: Mapping[str, Any] = field(hash=False)
    image: tuple[Annotated[int, AtLeast(1)], ...]  # type: ignore[misc]
    classes: Annotated[int, AtLeast(2)]  # type: ignore[misc]
    train: Mapping[str, Any] | None = field(default=None, hash=False)
    test: Mapping[str, Any] | None = field(default=None, hash=False)
    mean: tuple[float, ...] | None = None  # type: ignore[assignment]
    std: tuple[Annotated[float, Above(0)], ...] | None = None  # type: ignore[assignment]
    flip: bool = False  # type: ignore[misc]
    augment: bool | Mapping[str, Any] = field(default=False, hash=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("train", "test", "augment"):
            value = getattr(self, name)
            if (
                value is not None
                and not isinstance(value, Mapping)
                and not (name == "augment" and value in (True, False))
            ):
                raise ConfigError(f"dataset.{name}={value} must hold settings, as {{KEY: VALUE}}")
        if len(self.image) != 3:
            raise ConfigError(f"dataset.image={[*self.image]} must be channels, height and width, as [3, 32, 32]")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("dataset.mean and dataset.std go together: give both, or neither")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != self.image[0]:
                raise ConfigError(f"dataset.{name}={[*value]} must have {self.image[0]} values, one a channel")
        if self.flip and not self.augment:
            raise ConfigError("dataset.flip=true makes no sense with dataset.augment=false, which mirrors nothing")
        if self.train is not None and self.train == self.test:
            raise ConfigError("dataset.train and dataset.test are the same, and so would be the images")
        check_counts(self.train_count, self.limit, self.validation)

    @property
    def target(self) -> str:
        """Name what is called."""
        return str(self.part["_target_"])

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """Make the data set of training images and that of test images.

        Raises:
            ConfigError: it cannot be called so, or has no images by number.
        """
        taken = arguments(self.target).defaults
        splits = ({"train": True}, {"train": False}) if "train" in taken else ({"split": "train"}, {"split": "test"})
        made = []
        for words, more in zip(splits, (self.train, self.test), strict=True):
            filled = {key: value for key, value in words.items() if key in taken and key not in self.part}
            made.append(call({**self.part, **(more or {})}, **filled))
            if not hasattr(made[-1], "__getitem__") or not hasattr(made[-1], "__len__"):
                kind = type(made[-1]).__name__
                raise ConfigError(f"dataset: {self.target} returns {kind}: it must have __len__ and __getitem__")
        return made[0], made[1]

    @property
    def train_count(self) -> int:  # type: ignore[override]
        """Count the training images."""
        return len(self.parts[0])

    @property
    def test_count(self) -> int:  # type: ignore[override]
        """Count the test images."""
        return len(self.parts[1])

    def check(self) -> None:
        """Look at the first image and label of both parts.

        Raises:
            ConfigError: they are not what they must be.
        """
        for part in self.parts:
            self._sample(part, 0)

    def load(self) -> Images:
        """Read all images.

        Raises:
            ConfigError: one is not what it must be, changes when it is asked for again, or they are too many to keep.
        """
        arrays = {}
        for split, part in zip(("train", "test"), self.parts, strict=True):
            arrays[f"{split}_x"], arrays[f"{split}_y"] = self._read(part)
        if self.train_count and arrays["train_x"].dtype != arrays["test_x"].dtype:
            raise ConfigError(f"dataset: {self.target} gives training and test images of different types")
        whole = sha256()
        for array in arrays.values():
            whole.update(array.data)
        found = self.choose(arrays, whole.hexdigest())
        measured = _statistics(found.train_x) if self.mean is None else None
        return Images(found.train_x, found.train_y, found.eval_x, found.eval_y, found.split, found.source, measured)

    def open(
        self, device: Any, batch_size: int, seed: int, ranks: Ranks = ALONE, channels_last: bool | None = None
    ) -> Loader:
        """Return what gives a run its images, augmented by whatever ``augment`` names.

        Raises:
            ConfigError: as for ``load`` and ``Loader``.
        """
        if not isinstance(self.augment, Mapping):
            return super().open(device, batch_size, seed, ranks, channels_last)
        from dstrun.dataset.transformed import Transformed

        name, images = str(self.augment["_target_"]), self.load()
        return Transformed(self._transform(), name, images, self, device, batch_size, seed, ranks, channels_last)

    def _transform(self) -> Callable[[Any], Any]:
        assert isinstance(self.augment, Mapping)
        found = resolved(self.augment)
        return call(self.augment) if isinstance(found, type) else partial(found, **settings(self.augment))

    def _read(self, part: Any) -> tuple[np.ndarray, np.ndarray]:
        count = len(part)
        if not count:
            raise ConfigError(f"dataset: {self.target} has no images")
        first, _ = self._sample(part, 0)
        size = count * first.nbytes
        if size > RESIDENT_BYTES:
            raise ConfigError(
                f"dataset: {self.target} has {size / 1e9:.1f} GB of images, and at most {RESIDENT_BYTES / 1e9:.1f} GB "
                "are kept: put them into files for dataset=image_folder, which decodes as it trains"
            )
        x, y = np.empty((count, *self.image), first.dtype), np.empty(count, np.int64)
        for i in range(count):
            pixels, y[i] = self._sample(part, i)
            if pixels.dtype != x.dtype:
                raise ConfigError(f"dataset: {self.target} has images of {x.dtype} and of {pixels.dtype}: use one type")
            x[i] = pixels
        for i in range(min(count, READ_TWICE)):
            if not np.array_equal(self._sample(part, i)[0], x[i]):
                raise ConfigError(
                    f"dataset: image {i} of {self.target} changes when it is read again: images are read "
                    "once, so put random transforms into augment:"
                )
        return x, y

    def _sample(self, part: Any, number: int) -> tuple[np.ndarray, int]:
        """Return an image, (C, H, W) uint8, or float32 in units of 0..255, and its label.

        Raises:
            ConfigError: it is no image of this size, or its label no class.
        """
        said = f"dataset: image {number} of {self.target}"
        try:
            found = part[number]
        except Exception as error:
            said_so = " ".join(str(error).split())[:200]
            raise ConfigError(f"{said} cannot be read: {type(error).__name__}: {said_so}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ConfigError(f"{said} is a {type(found).__name__}: it must be a pair, (image, label)")
        pixels = np.asarray(found[0])
        channels, height, width = self.image
        if pixels.shape == (height, width, channels) and (pixels.shape != self.image or not hasattr(found[0], "dim")):
            pixels = np.moveaxis(pixels, 2, 0)
        elif pixels.shape == (height, width) and channels == 1:
            pixels = pixels[None]
        if pixels.shape != self.image:
            raise ConfigError(f"{said} has shape {pixels.shape}, and image: {[*self.image]} says otherwise")
        if pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32) * np.float32(255)
        elif pixels.dtype != np.uint8:
            raise ConfigError(f"{said} holds {pixels.dtype}: it must be uint8, or floating point of 0..1")
        try:
            label = operator.index(found[1])
        except TypeError:
            label = -1
        if not 0 <= label < self.classes:
            raise ConfigError(f"{said} has label {found[1]!r}: it must be a whole number in [0, {self.classes - 1}]")
        return pixels, label


def _statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, in units of 0..1; of one that is constant 1."""
    if x.dtype == np.uint8:
        return statistics(x)
    mean, std = x.mean((0, 2, 3), np.float64) / 255, x.std((0, 2, 3), np.float64) / 255
    return tuple(mean.tolist()), tuple(max(1e-4, value) for value in std.tolist())
