"""The three products of a linear layer on a GPU, by Triton; float32, bfloat16 and float16 with sums in float32.

A program computes one output, or the gradients of some connections of one output, for ``LANES`` items of the batch. It
gathers runs of items, which are neighbours in memory, and keeps its sums in registers. No two programs write to one
place, and each sums in one order, so that the same numbers come out every time.

Shape letters: A active connections, M connections, O outputs, I inputs, P items.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry

LANES = 128
"""Items of a program; of fewer a program takes the next power of two."""
TILE = 16
"""Connections that a program gathers at once."""
SHARE = 8 * TILE
"""About so many connections of an output, on average, have their gradients computed by one program."""
HOW = {"TILE": TILE, "enable_fp_fusion": True}


def forward(geometry: ConvGeometry, pattern: Pattern, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the output (O, 1, 1, P) of an input (I, 1, 1, P)."""
    return _multiplied(pattern.rows, pattern.inputs, None, weight, bias, x)


def input_gradient(
    geometry: ConvGeometry, pattern: Pattern, weight: Tensor, delta: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the gradient (I, 1, 1, P) of the input from the output's, (O, 1, 1, P)."""
    return _multiplied(*pattern.by_input(), weight, None, delta)


def weight_gradient(geometry: ConvGeometry, rows: Tensor, inputs: Tensor, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient (M,) of the connections that ``rows`` (O + 1,) and ``inputs`` (M,) name, float32."""
    gradient = torch.empty(inputs.numel(), dtype=torch.float32, device=x.device)
    outputs, items = rows.numel() - 1, x.shape[3]
    if gradient.numel():
        parts = triton.cdiv(gradient.numel(), outputs * SHARE)
        with torch.cuda.device_of(x):
            _sample[(outputs * parts,)](rows, inputs, x, delta, gradient, parts, items, LANES=_lanes(items), **HOW)
    return gradient


def _multiplied(
    rows: Tensor, inputs: Tensor, order: Tensor | None, weight: Tensor, bias: Tensor | None, x: Tensor
) -> Tensor:
    """Multiply the matrix whose connections are named by row, their weights in ``order``, with an input."""
    outputs, items = rows.numel() - 1, x.shape[3]
    y = x.new_empty((outputs, 1, 1, items))
    if y.numel():
        lanes = _lanes(items)
        programs = outputs * triton.cdiv(items, lanes)
        with torch.cuda.device_of(x):
            _multiply[(programs,)](rows, inputs, order, weight, bias, x, y, outputs, items, LANES=lanes, **HOW)
    return y


def _lanes(items: int) -> int:
    return max(16, min(LANES, triton.next_power_of_2(items)))


@triton.jit
def _multiply(rows, inputs, order, weight, bias, x, y, outputs, items, LANES: tl.constexpr, TILE: tl.constexpr):
    """Compute one output, for some items.

    Args:
        rows: (O + 1,) first connection of every output.
        inputs: (A,) input of each connection.
        order: (A,) where the weight of each connection is, or ``None``: in its place.
        weight: (A,) of any type.
        bias: (O,), or ``None``.
        x: (I, P).
        y: (O, P); overwritten.
        outputs: O.
        items: P.
        LANES: items of a program, a power of two.
        TILE: connections gathered at once, a power of two.
    """
    program = tl.program_id(0)  # of neighbours, all outputs for the same items: what they gather is in the cache
    output = (program % outputs).to(tl.int64)
    lane = (program // outputs).to(tl.int64) * LANES + tl.arange(0, LANES)
    first, end = tl.load(rows + output).to(tl.int64), tl.load(rows + output + 1).to(tl.int64)
    total = tl.zeros((TILE, LANES), tl.float32)
    for at in range(first, end, TILE):
        k = at + tl.arange(0, TILE)
        here = k < end
        place = k if order is None else tl.load(order + k, mask=here, other=0)
        factor = tl.load(weight + place, mask=here, other=0).to(tl.float32)
        line = x + tl.load(inputs + k, mask=here, other=0).to(tl.int64) * items
        seen = tl.load(line[:, None] + lane[None, :], mask=here[:, None] & (lane < items)[None, :], other=0)
        total += seen.to(tl.float32) * factor[:, None]
    result = tl.sum(total, 0)
    if bias is not None:
        result += tl.load(bias + output).to(tl.float32)
    tl.store(y + output * items + lane, result.to(y.dtype.element_ty), mask=lane < items)


@triton.jit
def _sample(rows, inputs, x, delta, gradient, parts, items, LANES: tl.constexpr, TILE: tl.constexpr):
    """Compute the gradients of some connections of one output: every ``parts``-th tile of them.

    Args:
        rows: (O + 1,) first connection of every output.
        inputs: (M,) input of each connection.
        x: (I, P).
        delta: (O, P).
        gradient: (M,) float32; overwritten.
        parts: programs of an output.
        items: P.
        LANES: items taken at once, a power of two.
        TILE: connections gathered at once, a power of two.
    """
    program = tl.program_id(0)
    output = (program // parts).to(tl.int64)
    first, end = tl.load(rows + output).to(tl.int64), tl.load(rows + output + 1).to(tl.int64)
    for at in range(first + program % parts * TILE, end, parts * TILE):
        k = at + tl.arange(0, TILE)
        here = k < end
        line = x + tl.load(inputs + k, mask=here, other=0).to(tl.int64) * items
        total = tl.zeros((TILE, LANES), tl.float32)
        for start in range(0, items, LANES):
            lane = start + tl.arange(0, LANES)
            pushed = tl.load(delta + output * items + lane, mask=lane < items, other=0).to(tl.float32)
            seen = tl.load(line[:, None] + lane[None, :], mask=here[:, None] & (lane < items)[None, :], other=0)
            total += seen.to(tl.float32) * pushed[None, :]
        tl.store(gradient + k, tl.sum(total, 1), mask=here)
