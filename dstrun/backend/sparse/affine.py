"""Batch normalization by known statistics, an addition and ReLU, in one pass each way, batch-innermost.

Shape letters: C channels, H rows, W columns, N samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dstrun.backend.sparse.kernel.call import array, hollow, threads
from dstrun.backend.sparse.kernel.layout import batch_innermost
from dstrun.backend.sparse.kernel.normalize import normalize, normalize_backward


def stored(x: Tensor) -> Tensor:
    """View (N, C, H, W) as it lies: (C, H, W, N)."""
    return x.permute(1, 2, 3, 0)


class Affine(NamedTuple):
    """A normalization by the statistics of a batch, and whether ReLU follows.

    Attributes:
        weight: (C,).
        bias: (C,).
        epsilon: added to the variance.
        mean: (C,) float32.
        variance: (C,) float32.
        rectified: whether ReLU follows.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float
    mean: Tensor
    variance: Tensor
    rectified: bool = False

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Compute the result for x (N, C, H, W), batch-innermost, with another such tensor added before ReLU."""
        y = torch.empty_like(x)  # as x lies, and no view: what follows may work in place
        if not hollow(x):
            weight, bias, epsilon, mean, variance = self._arrays()
            added = array(x[:0] if other is None else stored(other))
            normalize(
                array(stored(x)), added, weight, bias, epsilon, mean, variance, self.rectified,
                array(stored(y)), threads(),
            )  # fmt: skip
        return y

    def gradients(
        self, x: Tensor, y: Tensor | None, delta: Tensor, adds: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Compute the gradients of x, weight, bias, and of what was added.

        Args:
            x: (N, C, H, W) batch-innermost, what was normalized.
            y: likewise, the result; needed where something was added before ReLU.
            delta: its gradient, in any layout.
            adds: whether the gradient of what was added is wanted.
        """
        inner = batch_innermost(stored(delta))
        dx, dw, db = torch.empty_like(x), torch.empty_like(self.mean), torch.empty_like(self.mean)
        dother = (torch.empty_like(x) if self.rectified else delta) if adds else None
        if not hollow(x):
            none = array(delta[:0])
            weight, bias, epsilon, mean, variance = self._arrays()
            normalize_backward(
                array(stored(x)), none if y is None else array(stored(y)), array(inner), weight, bias, epsilon,
                mean, variance, self.rectified, array(stored(dx)),
                array(stored(dother)) if dother is not None and self.rectified else none,
                array(dw), array(db), threads(),
            )  # fmt: skip
        return dx, dw.to(self.weight.dtype), db.to(self.bias.dtype), dother

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
        weight, bias = array(self.weight.float()), array(self.bias.float())
        return weight, bias, self.epsilon, array(self.mean), array(self.variance)

    def bare(self) -> Affine:
        """Return it without the parameters, which autograd keeps."""
        none: Any = None
        return self._replace(weight=none, bias=none)
