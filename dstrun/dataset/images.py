"""Images in memory, and how a data set is split into training, validation and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from dstrun.config.option import AtLeast, option
from dstrun.dataset.cache import Shapes
from dstrun.system.lazy import np
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.dataset.loader import Loader

VALIDATION_SEED = 20240311
"""Of the permutation that takes out the validation images: the same images in every run, whatever its seed."""


@dataclass(frozen=True)
class Images:
    """The images of a run: N training images and M to evaluate on.

    Attributes:
        train_x: (N, C, H, W) uint8; or float32 in units of 0..255, of a data set that was not written for dstrun.
        train_y: (N,) int64.
        eval_x: (M, C, H, W), of the same type.
        eval_y: (M,) int64.
        split: what the evaluated images are.
        source: SHA-256 of the files (or arrays) that the images were decoded from, in hexadecimal.
        statistics: mean and standard deviation of each channel, in units of 0..1, where they are not the option's.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    eval_x: np.ndarray
    eval_y: np.ndarray
    split: Literal["test", "validation"]
    source: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @cached_property
    def checksum(self) -> str:
        """Digest the images and labels themselves, wherever they came from: SHA-256, 0.2 s for CIFAR-10."""
        whole = sha256()
        for array in (self.train_x, self.train_y, self.eval_x, self.eval_y):
            whole.update(f"{array.dtype} {array.shape} ".encode())
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()


@option
class Dataset:
    """Settings that every data set shares: ``validation`` training images are held out, and ``limit`` others are used.

    Attributes:
        image: channels, height and width.
        classes: labels lie in [0, classes).
        train_count, test_count: how many images were published.
        mean, std: of each channel, in units of 0..1.
        flip: whether a mirrored image still shows its class.
        augment: whether training images are shifted, and mirrored where ``flip`` allows it.
        limit: how many training images to keep; all if ``None``.
        validation: how many training images to evaluate on instead of the test images.
    """

    image: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]
    train_count: ClassVar[int]
    test_count: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    flip: ClassVar[bool]
    augment: ClassVar[bool] = False

    limit: Annotated[int, AtLeast(1)] | None = None
    validation: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check_counts(self.train_count, self.limit, self.validation)

    def check(self) -> None:
        """Check that the images are here, or can be downloaded, without loading or downloading any.

        Raises:
            ConfigError: in the words of ``load``.
        """

    def load(self) -> Images:
        """Decode the images, or find them decoded.

        Raises:
            ConfigError: they are not here, or damaged.
        """
        raise NotImplementedError

    def open(
        self, device: Any, batch_size: int, seed: int, ranks: Ranks = ALONE, channels_last: bool | None = None
    ) -> Loader:
        """Return what gives a run its images: here of a data set that is kept on the device whole.

        Raises:
            ConfigError: as ``load`` and ``Loader`` do.
        """
        from dstrun.dataset.loader import Resident

        return Resident(self.load(), self, device, batch_size, seed, self.augment, ranks, channels_last)

    def checksum(self) -> str:
        """Return ``Loader.checksum`` of what is here."""
        return self.load().checksum

    def found(self) -> str | None:
        """Return ``Images.source`` of what is here, without loading or downloading it; ``None``: that is not known."""
        return None

    @property
    def names(self) -> Sequence[str] | None:
        """Return the names of the classes, in the order of labels; ``None`` where nobody has written them down."""
        return None

    @property
    def train_images(self) -> int:
        """Count the training images that ``limit`` and ``validation`` leave, without loading any."""
        return self.limit if self.limit is not None else self.train_count - self.validation

    def shapes(self) -> Shapes:
        """Return what the decoded arrays look like."""
        return {
            "train_x": ((self.train_count, *self.image), np.uint8),
            "train_y": ((self.train_count,), np.int64),
            "test_x": ((self.test_count, *self.image), np.uint8),
            "test_y": ((self.test_count,), np.int64),
        }

    def choose(self, arrays: Mapping[str, np.ndarray], source: str) -> Images:
        """Split off the validation images, then keep the first ``limit`` training images in their published order.

        Args:
            arrays: ``train_x``, ``train_y``, ``test_x`` and ``test_y``, whole.
            source: checksum of what they were decoded from.

        Returns:
            The test images to evaluate on, or the validation images where there are any: then no test image.
        """
        train_x, train_y = arrays["train_x"], arrays["train_y"]
        if not self.validation:
            n = self.limit
            return Images(train_x[:n], train_y[:n], arrays["test_x"], arrays["test_y"], "test", source)
        order = permutation(self.train_count)
        held, kept = np.sort(order[: self.validation]), np.sort(order[self.validation :])[: self.limit]
        return Images(train_x[kept], train_y[kept], train_x[held], train_y[held], "validation", source)


def check_counts(count: int, limit: int | None, validation: int) -> None:
    """Check how many of ``count`` training images are to be held out, and how many kept.

    Raises:
        ConfigError: there are fewer.
    """
    if validation >= count:
        raise ConfigError(f"dataset.validation={validation} must be below {count}, the number of training images")
    left = count - validation
    if limit is not None and limit > left:
        after = f" that dataset.validation={validation} leaves" if validation else ""
        raise ConfigError(f"dataset.limit={limit} must be at most {left}, the number of training images{after}")


def permutation(count: int) -> np.ndarray:
    """Draw the order in which training images are held out: the same for ever, (count,) int64."""
    # The legacy generator: its stream is frozen, that of numpy.random.Generator may change between versions.
    return np.random.RandomState(VALIDATION_SEED).permutation(count)
