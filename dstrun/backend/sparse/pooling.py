"""Maximum pooling that keeps batch-innermost memory, for use between sparse layers.

Shape letters: N samples, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair
from torch.overrides import has_torch_function_unary

from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.kernel.call import array, fits, hollow, threads
from dstrun.backend.sparse.kernel.layout import batch_innermost
from dstrun.backend.sparse.kernel.pool import maximum, maximum_backward

TAPS = 256
"""Windows have no more positions: bfloat16 holds all whole numbers up to that."""


class MaxPool2d(nn.MaxPool2d):
    """PyTorch's, but without a change of layout where the input lies batch-innermost; the same numbers."""

    def forward(self, input: Tensor) -> Any:  # noqa: D102
        x = input.tensor() if isinstance(input, Deferred) else input
        if has_torch_function_unary(x) or x.dim() != 4 or not fits(x) or not x.permute(1, 2, 3, 0).is_contiguous():
            return super().forward(x)
        steps = tuple(_pair(each) for each in (self.kernel_size, self.stride, self.padding, self.dilation))
        down, across = zip(*steps, strict=True)
        size = tuple(map(_windows, x.shape[2:], (down, across)))
        right = down[0] * across[0] <= TAPS and all(2 * each[2] <= each[0] for each in (down, across))
        if self.ceil_mode or self.return_indices or not right or min(*size, x.numel()) < 1:
            return super().forward(x)  # which refuses what is wrong
        return _Pool.apply(x.permute(1, 2, 3, 0), size, (*down, *across)).permute(3, 0, 1, 2)


def _windows(length: int, steps: tuple[int, int, int, int]) -> int:
    """Count the windows along one side: of which length, in which stride, padding and dilation."""
    window, stride, padding, dilation = steps
    return (length + 2 * padding - dilation * (window - 1) - 1) // stride + 1


class _Pool(torch.autograd.Function):
    """Map (C, H, W, N) to (C, Ho, Wo, N); of each maximum, its place in the window is kept: 2 bytes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int], steps: tuple[int, ...]) -> Tensor:
        y = x.new_empty((x.shape[0], *size, x.shape[3]))
        tap = torch.empty_like(y, dtype=torch.bfloat16)
        ctx.sizes, ctx.steps = (*x.shape[:3], *y.shape[1:]), steps
        ctx.save_for_backward(tap)
        if not hollow(x):
            maximum(array(x), array(y), array(tap), ctx.sizes, steps, threads())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (tap,), delta = ctx.saved_tensors, batch_innermost(delta)
        dx = delta.new_empty((*ctx.sizes[:3], delta.shape[3]))
        if not hollow(delta):
            maximum_backward(array(delta), array(tap), array(dx), ctx.sizes, ctx.steps, threads())
        return dx, None, None
