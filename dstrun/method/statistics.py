"""Passes that leave a network's running statistics as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as in training, but leave the running statistics as they are."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kind) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Normalize by the running statistics and drop nothing, as in evaluation."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
