"""The three products in plain PyTorch: slow, on every device and in every floating type; what the fast ones must equal.

Goes over the taps of the kernel, and over connections in blocks, so that no more than ``BLOCK`` numbers are gathered
at once. Activations lie batch-innermost, as in ``product``; sums are accumulated in float32, or float64.

Shape letters: M connections, O outputs, C input channels, G groups, T taps, N samples.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry

BLOCK = 1 << 22
"""Numbers gathered at once."""

KEPT = 1 << 16
"""Layers of up to so many connections are split once for each pattern; of larger ones the products take longer."""


class _Part(NamedTuple):
    """Connections of one tap: their numbers, outputs, channels, and the positions and inputs that see each other."""

    numbers: Tensor
    output: Tensor
    channel: Tensor
    rows: slice
    columns: slice
    input_rows: slice
    input_columns: slice


class _Splits(NamedTuple):
    """How connections were split: whose rows those were, the versions of both tensors, and the parts by shapes."""

    rows: weakref.ref[Tensor]
    versions: tuple[int, int]
    parts: dict[Any, list[_Part]]


_SPLITS = WeakIdKeyDictionary()
"""Splits of every pattern in use, by its inputs."""


def forward(geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the output (O, Ho, Wo, N) of an input (C, H, W, N)."""
    y = x.new_zeros((geometry.shape[0], *geometry.output_size(x.shape[1:3]), x.shape[3]), dtype=_sum_type(x))
    for part in _parts(geometry, pattern.rows, pattern.inputs, x.shape, y.shape):
        seen = x[:, part.input_rows, part.input_columns][part.channel].to(y.dtype)
        scale = weight[part.numbers].to(y.dtype).view(-1, 1, 1, 1)
        y[:, part.rows, part.columns].index_add_(0, part.output, seen * scale)
    if bias is not None:
        y += bias.to(y.dtype).view(-1, 1, 1, 1)
    return y.to(x.dtype)


def input_gradient(
    geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the gradient (C, H, W, N) of the input of that size from the output's, (O, Ho, Wo, N)."""
    dx = delta.new_zeros((pattern.channels, *size, delta.shape[3]), dtype=_sum_type(delta))
    for part in _parts(geometry, pattern.rows, pattern.inputs, dx.shape, delta.shape):
        seen = delta[:, part.rows, part.columns][part.output].to(dx.dtype)
        scale = weight[part.numbers].to(dx.dtype).view(-1, 1, 1, 1)
        dx[:, part.input_rows, part.input_columns].index_add_(0, part.channel, seen * scale)
    return dx.to(delta.dtype)


def weight_gradient(geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name; float32 or 64."""
    gradient = x.new_zeros(inputs.numel(), dtype=_sum_type(x))
    for part in _parts(geometry, rows, inputs, x.shape, delta.shape):
        seen = x[:, part.input_rows, part.input_columns][part.channel].to(gradient.dtype)
        pushed = delta[:, part.rows, part.columns][part.output].to(gradient.dtype)
        gradient[part.numbers] = (seen * pushed).sum((1, 2, 3))
    return gradient


def _sum_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _parts(
    geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x_shape: torch.Size, y_shape: torch.Size
) -> list[_Part]:
    """Split connections by tap and into blocks; as before, where neither they nor the shapes have changed."""
    if inputs.numel() > KEPT or rows.is_inference() or inputs.is_inference():  # those have no version
        return _split(geometry, rows, inputs, x_shape, y_shape)
    versions = rows._version, inputs._version
    known = _SPLITS.get(inputs)
    if known is None or known.rows() is not rows or known.versions != versions:
        known = _SPLITS[inputs] = _Splits(weakref.ref(rows), versions, {})
    key = geometry, x_shape[1:3], y_shape[1:], BLOCK
    if key not in known.parts:
        known.parts[key] = _split(geometry, rows, inputs, x_shape, y_shape)
    return known.parts[key]


def _split(
    geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x_shape: torch.Size, y_shape: torch.Size
) -> list[_Part]:
    """Split connections by tap and into blocks; taps that see only padding are left out."""
    found: list[_Part] = []
    out, channels, *kernel = geometry.shape
    taps = kernel[0] * kernel[1]
    output = torch.repeat_interleave(torch.arange(out, device=rows.device), rows.long().diff())
    codes = inputs.to(torch.int64)
    channel = output // (out // geometry.groups) * channels + codes // taps
    for tap in range(taps):
        windows = [
            _window(size, extent, stride, at * dilation - padding)
            for size, extent, stride, at, dilation, padding in zip(
                x_shape[1:3],
                y_shape[1:3],
                geometry.stride,
                divmod(tap, kernel[1]),
                geometry.dilation,
                geometry.padding,
                strict=True,
            )
        ]
        if any(window is None for window in windows):
            continue
        (seeing, seen), (seeing_columns, seen_columns) = [window for window in windows if window is not None]
        numbers = (codes % taps == tap).nonzero().flatten()
        block = max(1, BLOCK // max(1, y_shape[1:].numel()))
        for part in numbers.split(block):
            found.append(_Part(part, output[part], channel[part], seeing, seeing_columns, seen, seen_columns))
    return found


def _window(size: int, extent: int, stride: int, shift: int) -> tuple[slice, slice] | None:
    """Return the output positions, of ``extent``, that see an input inside ``size``: ``t * stride + shift``; and it."""
    first = max(0, -(shift // stride))
    last = min(extent - 1, (size - 1 - shift) // stride)
    if last < first:
        return None
    start = first * stride + shift
    return slice(first, last + 1), slice(start, last * stride + shift + 1, stride)
