"""Splitting features into heads: attention needs those of a head side by side in memory, as sparse layers do not lie.

Shape letters: D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dstrun.backend.sparse.affine import features
from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.kernel.call import fits
from dstrun.backend.sparse.kernel.layout import batch_outermost
from dstrun.backend.sparse.normalization import features_outermost


class Unflatten(nn.Unflatten):
    """PyTorch's; features that lie outermost in memory are laid side by side first."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        x = input.tensor() if isinstance(input, Deferred) else input
        if self.dim in (-1, x.dim() - 1) and fits(x) and features_outermost(x):
            x = _SideBySide.apply(x)
        return super().forward(x)


class _SideBySide(torch.autograd.Function):
    """Lay (..., D) out contiguously; the gradient may lie in any layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return batch_outermost(features(x)).view(x.shape)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return delta
