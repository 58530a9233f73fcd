"""The three products on tensors that hold no numbers: results of the right shape and type, for predicting memory."""

from __future__ import annotations

from torch import Tensor

from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry


def forward(geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the output (O, Ho, Wo, N) of an input (C, H, W, N)."""
    return x.new_empty((geometry.shape[0], *geometry.output_size(x.shape[1:3]), x.shape[3]))


def input_gradient(
    geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the gradient (C, H, W, N) of the input of that size from the output's, (O, Ho, Wo, N)."""
    return delta.new_empty((pattern.channels, *size, delta.shape[3]))


def weight_gradient(geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name."""
    return x.new_empty(inputs.numel())
