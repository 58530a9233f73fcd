"""Learned soft thresholds: sign(w) relu(|w| - sigmoid(s)), one s per layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dstrun.layer.interface import single
from dstrun.layer.selection import highest


class Threshold(nn.Module):
    """Computes a layer's weights from those stored and a threshold T = sigmoid(s).

    In the backward pass relu' is 1 for active weights and ``alpha`` for pruned ones, and so both w and s hear of
    pruned weights: dL/dw = h' g, dL/ds = -T (1 - T) sum h' g sign(w), with g the gradient of the weights computed.

    Attributes:
        active: () int64, how many weights of the last pass in training mode were not 0.

    Args:
        like: the stored weight.
        start: of s.
        reached: how many weights have gradients while alpha > 0: the active ones, and of the pruned as many as fit,
            nearest to the threshold first; all if ``None``.
    """

    active: Tensor

    def __init__(self, like: Tensor, start: float, reached: int | None = None) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full((), start, dtype=single(like).dtype, device=like.device))
        self.alpha = 0.0
        self.reached = reached

    def forward(self, w: Tensor) -> Tensor:
        """Compute the weights."""
        reached = None
        if self.reached is not None and self.alpha > 0:
            reached = torch.zeros_like(w, dtype=torch.bool)
            reached.view(-1).index_fill_(0, highest(w.detach().abs().flatten(), self.reached), True)
        computed: Tensor = _SoftThreshold.apply(w, self.s, self.alpha, reached)  # type: ignore[assignment]
        if self.training:
            self.active = computed.detach().count_nonzero()
        return computed


class _SoftThreshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, s: Tensor, alpha: float, reached: Tensor | None) -> Tensor:
        threshold = s.sigmoid()
        ctx.save_for_backward(w, threshold, reached)
        ctx.alpha = alpha
        return w.sign() * (w.abs() - threshold).relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (g,) = grads
        w, threshold, reached = ctx.saved_tensors
        pruned = ctx.alpha * g if ctx.alpha else 0
        if reached is not None:
            pruned = torch.where(reached, pruned, 0)
        passed = torch.where(w.abs() > threshold, g, pruned)
        total = (passed * w.sign()).sum(dtype=threshold.dtype)
        return passed, -threshold * (1 - threshold) * total, None, None
