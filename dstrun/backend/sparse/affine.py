"""Normalizations of batch-innermost activations, in one pass each way: what a ``Deferred`` tensor stands for.

Shape letters: C channels, H rows, W columns, N samples, D features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dstrun.backend.sparse.kernel.call import array, hollow, threads
from dstrun.backend.sparse.kernel.layer_norm import PARTS, layer_normalize, layer_normalize_backward
from dstrun.backend.sparse.kernel.layout import batch_innermost
from dstrun.backend.sparse.kernel.normalize import normalize, normalize_backward


def stored(x: Tensor) -> Tensor:
    """View (N, C, H, W) as it lies: (C, H, W, N)."""
    return x.permute(1, 2, 3, 0)


def features(x: Tensor) -> Tensor:
    """View (..., D) as sparse layers see it: (D, 1, 1, all others)."""
    return x.movedim(-1, 0).reshape(x.shape[-1], 1, 1, -1)


def items(x: Tensor, lead: torch.Size) -> Tensor:
    """View (D, 1, 1, all others) as (..., D): ``features`` undone."""
    return x.reshape(x.shape[0], *lead).movedim(0, -1)


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

    view = staticmethod(stored)
    """As kernels see what was normalized."""

    @staticmethod
    def logical(x: Tensor, shape: torch.Size) -> Tensor:
        """View what kernels give as what was normalized."""
        return x.permute(3, 0, 1, 2)

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


class FeatureAffine(NamedTuple):
    """A normalization of every item (..., D) by the mean and the deviation of its features.

    Attributes:
        weight: (D,).
        bias: (D,).
        epsilon: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float

    rectified = False
    view = staticmethod(features)

    @staticmethod
    def logical(x: Tensor, shape: torch.Size) -> Tensor:
        """View what kernels give as what was normalized."""
        return items(x, shape[:-1])

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Compute the result for x (..., D), batch-innermost."""
        y = torch.empty_like(x)
        if not hollow(x):
            weight, bias = array(self.weight.float()), array(self.bias.float())
            layer_normalize(array(features(x)), weight, bias, self.epsilon, array(features(y)), threads())
        return y

    def gradients(
        self, x: Tensor, y: Tensor | None, delta: Tensor, adds: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Compute the gradients of x, weight and bias; those of statistics are included.

        Args:
            x: (..., D) batch-innermost, what was normalized.
            y: not needed.
            delta: the gradient of the result, in any layout.
            adds: nothing is.
        """
        inner, dx = batch_innermost(features(delta)), torch.empty_like(x)
        parts = torch.empty((2, PARTS, x.shape[-1]), dtype=torch.float32)
        if not hollow(x):
            layer_normalize_backward(
                array(features(x)), array(self.weight.float()), self.epsilon, array(inner), array(features(dx)),
                array(parts), threads(),
            )  # fmt: skip
        dw, db = parts.sum(1)
        return dx, dw.to(self.weight.dtype), db.to(self.bias.dtype), None

    def bare(self) -> FeatureAffine:
        """Return it without the parameters, which autograd keeps."""
        none: Any = None
        return self._replace(weight=none, bias=none)
