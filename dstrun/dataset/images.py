"""Images in memory, and how a data set is split into training, validation and test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from dstrun.option import ConfigError

VALIDATION_SEED = 20240311
"""Of the permutation that takes out the validation images: the same images in every run, whatever its seed."""


class Split(Protocol):
    """What ``limit`` and ``validation`` need to know of a data set: how many training images were published."""

    train_count: ClassVar[int]

    @property
    def limit(self) -> int | None:
        """How many training images to keep; all if ``None``."""
        ...

    @property
    def validation(self) -> int:
        """How many training images to evaluate on instead of the test images."""
        ...


class Dataset(Protocol):
    """An option of the group ``dataset``.

    Attributes:
        image: channels, height and width.
        classes: labels lie in [0, classes).
        mean, std: of each channel, in units of 0..1.
        flip: whether a mirrored image still shows its class.
    """

    image: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    flip: ClassVar[bool]


@dataclass(frozen=True)
class Images:
    """The images of a run: N training images and M to evaluate on.

    Attributes:
        train_x: (N, C, H, W) uint8.
        train_y: (N,) int64.
        eval_x: (M, C, H, W) uint8.
        eval_y: (M,) int64.
        split: what the evaluated images are.
        source: SHA-256 of the files (or arrays) that the images were decoded from, in hexadecimal.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    eval_x: np.ndarray
    eval_y: np.ndarray
    split: Literal["test", "validation"]
    source: str


def train_images(option: Split) -> int:
    """Count the training images that ``limit`` and ``validation`` leave, without loading any."""
    return option.limit if option.limit is not None else option.train_count - option.validation


def check_split(option: Split) -> None:
    """Check that ``limit`` and ``validation`` leave at least one training image and ask for none that is not there.

    Raises:
        ConfigError: they do not.
    """
    if option.validation >= option.train_count:
        raise ConfigError(
            f"dataset.validation={option.validation} must be below {option.train_count}, the number of training images"
        )
    left = option.train_count - option.validation
    if option.limit is not None and option.limit > left:
        after = f" that dataset.validation={option.validation} leaves" if option.validation else ""
        raise ConfigError(f"dataset.limit={option.limit} must be at most {left}, the number of training images{after}")


def split_images(option: Split, arrays: Mapping[str, np.ndarray], source: str) -> Images:
    """Take out the validation images, then keep the first ``limit`` training images in their published order.

    Args:
        option: how many of each.
        arrays: ``train_x``, ``train_y``, ``test_x`` and ``test_y``, whole.
        source: checksum of what they were decoded from.

    Returns:
        The test images to evaluate on, or the validation images where there are any: then no test image.
    """
    train_x, train_y = arrays["train_x"], arrays["train_y"]
    if not option.validation:
        n = option.limit
        return Images(train_x[:n], train_y[:n], arrays["test_x"], arrays["test_y"], "test", source)
    # The legacy generator: its stream is frozen, that of numpy.random.Generator may change between versions.
    order = np.random.RandomState(VALIDATION_SEED).permutation(option.train_count)
    held, kept = np.sort(order[: option.validation]), np.sort(order[option.validation :])[: option.limit]
    return Images(train_x[kept], train_y[kept], train_x[held], train_y[held], "validation", source)
