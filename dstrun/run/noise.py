"""Random images in place of a data set, for whole steps whose time alone is of interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dstrun.config.experiment import Experiment
from dstrun.dataset.images import Dataset, Images


@dataclass(frozen=True)
class Noise:
    """Random images in place of a data set, of the same size and classes."""

    like: Any
    count: int
    augment: bool = False

    open = Dataset.open

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
