"""The three products in compiled code, on the CPU, for float32 and bfloat16 with sums in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dstrun.backend.sparse.kernel.call import array, threads
from dstrun.backend.sparse.kernel.linear import multiply, sampled
from dstrun.backend.sparse.kernel.product import product
from dstrun.backend.sparse.kernel.transpose import gather
from dstrun.backend.sparse.kernel.weight_gradient import weight_gradient as sampled_product
from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry

NO_BIAS = np.empty(0, np.float32)


def forward(geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the output (O, Ho, Wo, N) of an input (C, H, W, N)."""
    y = x.new_empty((geometry.shape[0], *geometry.output_size(x.shape[1:3]), x.shape[3]))
    (stride_y, stride_x), (down, across), (up, left) = geometry.stride, geometry.dilation, geometry.padding
    steps = (stride_y, 1, down, -up, stride_x, 1, across, -left)
    _product(geometry, (pattern.rows, pattern.inputs, weight.float()), bias, x, y, steps)
    return y


def input_gradient(
    geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the gradient (C, H, W, N) of the input of that size from the output's, (O, Ho, Wo, N)."""
    dx = delta.new_empty((pattern.channels, *size, delta.shape[3]))
    (stride_y, stride_x), (down, across), (up, left) = geometry.stride, geometry.dilation, geometry.padding
    steps = (1, stride_y, -down, up, 1, stride_x, -across, left)
    threads()
    ordered = torch.empty(weight.shape, dtype=torch.float32)
    columns, outputs, order = pattern.by_input()
    gather(array(weight.float()), array(order), array(ordered))
    _product(geometry, (columns, outputs, ordered), None, delta, dx, steps)
    return dx


def weight_gradient(geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name, float32."""
    gradient = torch.empty(inputs.numel(), dtype=torch.float32)
    if delta.numel() == 0:
        return gradient.zero_()
    _, _, height, width = geometry.shape
    vertical, horizontal = zip(geometry.stride, geometry.dilation, geometry.padding, strict=True)
    steps = (width, height * width, *vertical, *horizontal)
    sizes = _sizes(geometry, x, delta)
    arrays = (array(rows), array(inputs))
    if _is_linear(geometry, sizes):
        sampled(arrays, array(x), array(delta), array(gradient), (sizes[0], sizes[3], sizes[6]), threads())
    else:
        sampled_product(arrays, array(x), array(delta), array(gradient), sizes, steps, threads())
    return gradient


def _product(
    geometry: ConvGeometry,
    connections: tuple[Tensor, Tensor, Tensor],
    bias: Tensor | None,
    source: Tensor,
    target: Tensor,
    steps: tuple[int, ...],
) -> None:
    if target.numel() == 0:
        return
    _, _, height, width = geometry.shape
    arrays = (array(connections[0]), array(connections[1]), array(connections[2]))
    biases = NO_BIAS if bias is None else array(bias.float())
    sizes = _sizes(geometry, source, target)
    if _is_linear(geometry, sizes):
        multiply(arrays, biases, array(source), array(target), (sizes[0], sizes[3], sizes[6]), threads())
    else:
        steps = (width, height * width, *steps)
        product(arrays, biases, array(source), array(target), sizes, steps, threads())


def _is_linear(geometry: ConvGeometry, sizes: tuple[int, ...]) -> bool:
    """Return whether there is one tap and one position, which sees no padding."""
    return (*geometry.shape[2:], *sizes[1:3], *sizes[4:6]) == (1,) * 6 and geometry.padding == (0, 0)


def _sizes(geometry: ConvGeometry, source: Tensor, target: Tensor) -> tuple[int, ...]:
    """Return (S / G, Hs, Ws, D / G, Hd, Wd, N); positions are lanes of a 1x1 kernel that sees each once."""
    groups, lanes = geometry.groups, source.shape[3]
    spaces = [tuple(tensor.shape[1:3]) for tensor in (source, target)]
    if geometry.pointwise:
        lanes *= source.shape[1] * source.shape[2]
        spaces = [(1, 1), (1, 1)]
    return (source.shape[0] // groups, *spaces[0], target.shape[0] // groups, *spaces[1], lanes)


def announce(say: Callable[[str], None]) -> None:
    """Announce that the kernels will be compiled, where numba's cache on disk holds none yet."""
    folder, name = product.stats.cache_path, product.__module__.rpartition(".")[2]
    if folder is None:
        say("compiling the sparse kernels (about half a minute); not cached, as no cache folder is writable")
    elif not any(Path(folder).glob(f"{name}.*.nbi")):
        say("compiling the sparse kernels for this processor (about half a minute); cached for later runs")
