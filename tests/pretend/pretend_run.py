"""Runs of dstrun on the pretend device, and on the CPU as that device would have them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch
from cuda_mode import pretend, same_settings
from cuda_tensor import CudaTensor
from tally import Tally, counting
from torch import Tensor

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.dataset.cifar import CIFAR10
from dstrun.dataset.images import Images
from dstrun.run.assemble import assemble
from dstrun.train.graph import fuse
from dstrun.train.training import Training

WORDS = ("dataset=digits", "dataset.limit=96", "batch_size=32", "epochs=2", "threads=1", "wandb=disabled")
SMALL = {"mlp": ("model=mlp",), "resnet20": ("model=resnet20", "model.width=0.25")}
"""Networks that take milliseconds a step."""
SOON = ("schedule.interval_steps=3", "schedule.begin=0")
"""An update at the third step."""


@dataclass
class Taken:
    """A step that was taken: whether it updated the topology, what the device did, and the sum of losses after it."""

    updated: bool
    tally: Tally
    loss: float


def begin(words: Sequence[str], device: str, last: bool = False) -> Training:
    """Put a run together that is ready for its first step; its steps are launched one by one.

    On the CPU the optimizer has the kernels that a GPU would have had.

    Args:
        words: of the command line.
        device: ``cpu``, or ``cuda`` where that is pretended.
        last: whether images and weights on the CPU have their channels innermost, as on a GPU in any precision but
            fp32.
    """
    experiment = _composed((*WORDS, "optimizer.lr=0.05", *words))
    with patch("dstrun.run.assemble.weights_innermost", lambda *_: True) if last else nullcontext():
        run = assemble(experiment, torch.device(device))
    run.graphs = False
    for layer in run.layers:
        layer.kernel = "reference"  # of the sparse ones: Triton takes no pretended tensors
    if device == "cpu":
        run.data.channels_last = last
        if run._is_repeatable():
            fuse(run.optimizer, run.device)
        for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
            group["foreach"] = not group.get("fused")
    run.model.train()
    return run


@cache
def _composed(words: tuple[str, ...]) -> Experiment:
    return compose(list(words))


def advance(run: Training, steps: int) -> list[Taken]:
    """Train some steps."""
    found = []
    for _ in range(steps):
        run.data.begin(run.step)
        with counting() as tally:
            updates = run.take_step()
        found.append(Taken(bool(updates), tally, host(run.loss_sum).item()))
    return found


def enough(run: Training) -> int:
    """Count the steps that take a run past its first update, four at least where it has as many."""
    updates = filter(run.procedure.updates_at, range(1, run.total_steps + 1))
    return min(max(4, next(updates, 0) + 1), run.total_steps)


@dataclass
class Result:
    """What a run leaves: the sum of losses after every step, an evaluation, and its numbers."""

    losses: list[float]
    updates: int
    evaluated: dict[str, float]
    numbers: list[Tensor]


def trained(words: Sequence[str], device: str, last: bool = False) -> Result:
    """Train through an update and evaluate, and look at all that goes into a record."""
    with pretend() if device == "cuda" else nullcontext(), same_settings():
        run = begin(words, device, last)
        run.prepare()
        taken = advance(run, enough(run))
        evaluated = run.evaluate()
        run.topology(), run.densities(), run.memory.record()
        for name, tensor in run.model.state_dict().items():
            counter = name.endswith("num_batches_tracked")
            assert isinstance(tensor, CudaTensor) == (device == "cuda" and not counter), name
        return Result([step.loss for step in taken], run.updates, evaluated, numbers(run))


def numbers(run: Training) -> list[Tensor]:
    """Return the numbers that two equal runs have in common: weights, topologies and the optimizers' states."""
    states = [state for optimizer in run.optimizers for state in optimizer.state.values()]
    kept = [t for state in states for t in state.values() if isinstance(t, Tensor)]
    topologies = [layer.topology.positions for layer in run.layers]
    return [host(t) for t in (*run.model.state_dict().values(), *topologies, *kept)]


def host(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers, wherever it is, without a trace in a tally."""
    return tensor.held if isinstance(tensor, CudaTensor) else tensor.detach()


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Put noise in place of CIFAR-10; returns the words of a run on it."""

    def load(self: CIFAR10) -> Images:
        draws = np.random.default_rng(0)
        x, y = draws.integers(256, size=(16, *self.image), dtype=np.uint8), draws.integers(10, size=16)
        return Images(x, y, x[:4], y[:4], "test", "noise")

    monkeypatch.setattr(CIFAR10, "load", load)
    return ("dataset=cifar10", "dataset.limit=16", "batch_size=4")
