"""Weights w 1_A: the forward pass uses the active ones, gradients reach others as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dstrun.layer.interface import DenseLayer
from dstrun.layer.selection import highest


class Selected(nn.Module):
    """Computes a layer's weights: those stored where active, 0 elsewhere.

    Attributes:
        active: A, of the weight's shape; all to begin with.
        reached: B, a superset of A: those whose gradient is passed on.
        alpha: factor on the gradients of B without A.
    """

    active: Tensor
    reached: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.alpha = 1.0
        for name in ("active", "reached"):
            self.register_buffer(name, torch.ones_like(like, dtype=torch.bool))

    def forward(self, w: Tensor) -> Tensor:
        """Compute the weights."""
        return _Select.apply(w, self.active, self.reached, self.alpha)  # type: ignore[return-value]

    def choose(self, layer: DenseLayer, active: int, reached: int | None = None) -> None:
        """Set A to the ``active`` weights of largest magnitude, and B to the ``reached`` ones (all if ``None``)."""
        order = highest(layer.weight.detach().abs().flatten(), active if reached is None else reached)
        self.active.zero_().view(-1).index_fill_(0, order[:active], True)
        layer.ever |= self.active
        if reached is not None:
            self.reached.zero_().view(-1).index_fill_(0, order, True)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, active: Tensor, reached: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(active, reached)
        ctx.alpha = alpha
        return torch.where(active, w, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        active, reached = ctx.saved_tensors
        return torch.where(active, grads[0], torch.where(reached, ctx.alpha * grads[0], 0)), None, None, None
