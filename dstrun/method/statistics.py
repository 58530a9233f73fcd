"""Passes that do not change the network's state: running statistics, dropout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def switched_off(modules: Iterable[nn.Module], switch: str) -> Iterator[None]:
    """Set an attribute of those modules to false where it is true, and back afterwards."""
    on = [module for module in modules if getattr(module, switch)]
    for module in on:
        setattr(module, switch, False)
    try:
        yield
    finally:
        for module in on:
            setattr(module, switch, True)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as in training, but leave the running statistics as they are."""
    norms = (module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm))
    with switched_off(norms, "track_running_stats"):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Normalize by the running statistics and drop nothing, as in evaluation."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
