"""Random images in place of a data set, for whole steps whose time alone is of interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dstrun.config.experiment import Experiment
from dstrun.dataset.images import Images
from dstrun.dataset.loader import Resident
from dstrun.system.ranks import ALONE, Ranks


class Repeated(Resident):
    """Few images that come again and again, in epochs as long as those of the data set that they stand for."""

    def __init__(self, images: Images, option: Any, *given: Any) -> None:
        super().__init__(images, option, *given)
        self._held, self.steps_per_epoch = self.steps_per_epoch, option.train_images // self.batch_size

    def batch(self, step: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Look one of the batches up."""
        return super().batch(step % self._held, part)


@dataclass(frozen=True)
class Noise:
    """Random images in place of a data set, of the same size, classes and length of an epoch.

    Attributes:
        like: the data set.
        count: images that there are.
    """

    like: Any
    count: int
    augment: bool = False

    def open(
        self, device: Any, batch_size: int, seed: int, ranks: Ranks = ALONE, channels_last: bool | None = None
    ) -> Repeated:
        """Return a loader of them."""
        return Repeated(self.load(), self, device, batch_size, seed, self.augment, ranks, channels_last)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.like, name)

    def load(self) -> Images:
        """Draw the images."""
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (self.count, *self.like.image), np.uint8)
        y = random.integers(0, self.like.classes, self.count)
        return Images(x, y, x[:1], y[:1], "test", "random")


@dataclass(frozen=True)
class NoiseExperiment(Experiment):
    """An experiment on random images."""

    def build(self, group: str) -> Any:
        """Build an option; of the data set its random likeness, two batches of it."""
        made = super().build(group)
        return Noise(made, 2 * self.config["batch_size"]) if group == "dataset" else made
