"""Predict memory: execute the phases of a run on fake tensors (``account.hollow``)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dstrun.account.hollow import Hollow
from dstrun.config.experiment import Experiment
from dstrun.dataset.images import Images
from dstrun.dataset.loader import Loader, Resident
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.system.ranks import Ranks

HOW = "predicted by running the steps on tensors without data; memory inside kernels is computed by formulas"


def predict_memory(experiment: Experiment) -> dict[str, Any]:
    """Predict the record's ``memory`` group, and ``timeline``, by running a step and an update without numbers.

    ``backend=auto`` is predicted as ``sparse``: steps are timed when a run starts.

    Raises:
        ConfigError: parts that do not fit together.
    """
    blueprint = Blueprint(_Blank(experiment.config, experiment.choices))
    hollow = Hollow()
    with _silent(), hollow:
        training = assemble(blueprint.experiment, torch.device("cpu"), blueprint.backends, blueprint=blueprint)
        meter = training.memory
        meter.record_events, meter.address = hollow.recorded, hollow.address
        training.model.train()
        training.prepare()
        for step in steps_to_see(training):
            training.step = step - 1
            training.data.begin(step - 1)
            kind = "update" if training.procedure.updates_at(step) else "step"
            with meter.phase(kind) if step > 1 or training.total_steps == 1 else nullcontext():
                training.take_step()
        return meter.record() | {"how": HOW}


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the log: a run that is predicted has no connections of its own to warn of."""
    log = logging.getLogger("dstrun")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def steps_to_see(training: Any) -> list[int]:
    """Return the steps to take: the first, the next ordinary one, the first update after it, and what that needs."""
    steps = range(2, training.total_steps + 1)
    updates = training.procedure.updates_at
    chosen = {next((s for s in steps if bool(updates(s)) is kind), None) for kind in (False, True)}
    return sorted({1, *training.procedure.remembered()} | {step for step in chosen if step is not None})


class _Blank(Experiment):
    """An experiment on images that are not there."""

    def build(self, group: str) -> Any:
        """Build an option; of the data set one that loads nothing."""
        made = super().build(group)
        return _Unseen(made) if group == "dataset" else made


@dataclass(frozen=True)
class _Unseen:
    """A data set of as many images of the same size, which take no memory."""

    like: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.like, name)

    def open(self, device: Any, batch_size: int, seed: int, ranks: Ranks, channels_last: bool | None = None) -> Loader:
        """Return a loader of images that are one byte, seen over and over, and as many labels of every class."""
        augment = getattr(self.like, "augment", False) is True
        return Resident(self._images(), self.like, device, batch_size, seed, augment, ranks, channels_last)

    def _images(self) -> Images:
        count, image = self.like.train_images, self.like.image
        x = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (count, *image), (0,) * (1 + len(image)))
        y = np.arange(count) % self.like.classes
        statistics = (0.0,) * image[0], (1.0,) * image[0]
        return Images(x, y, x[:1], y[:1], "test", "none", statistics=statistics)
