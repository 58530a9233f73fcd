"""Formulas for the memory that PyTorch's CPU kernels allocate internally.

They were read off the profiler for single operations of many sizes (PyTorch 2.11 to 2.15, oneDNN, AVX-512): operands
that oneDNN wants in an order of its own are copied, and sums in 16 bits are gathered in 32. All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
ROWS, COLUMNS, TERMS = 256, 64, 512
"""A product in 16 bits is computed in tiles of at most so many rows and columns, of sums of so many terms."""
BLOCK, FEW = 16, 4
"""Channels are laid out in blocks of so many, unless there are fewer than these: images."""
SUMS = 147_456
"""Of the gradient of a convolution's weight in 16 bits, what is held besides a weight in 32 bits for each thread."""


def scratch(func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Return the bytes that an operation holds at most besides its inputs and results.

    Args:
        func: the operation, an overload of ``torch.ops.aten``.
        given: its tensors.
        made: its results.
    """
    kind = func.overloadpacket
    if not given or given[0].device.type != "cpu":
        return 0
    if kind is aten.convolution:
        return _forward(given[0], given[1], made[0])
    if kind is aten.convolution_backward:
        return _backward(*given[:3])
    if kind is aten.native_batch_norm_backward:
        return given[1].nbytes if _is_last(given[1]) else 0
    if kind in PRODUCTS and given[-1].dtype in HALVES:
        return _product(given[-2], given[-1], torch.get_num_threads())
    return 0


def _product(one: Tensor, other: Tensor, threads: int) -> int:
    """Each thread has a tile of the result in 32 bits, a packed one of the right factor, and of a turned left one."""
    rows, terms, columns = *one.shape[-2:], other.shape[-1]
    turned = one.stride(-2) == 1 and rows > 1
    parts = _ceil(rows, ROWS)
    if rows > COLUMNS if turned else _ceil(columns, COLUMNS) % threads:
        parts = _ceil(parts, threads) * threads
    height, padded = _ceil(rows, parts), _ceil(terms, 32) * 32
    right = COLUMNS * min(padded, TERMS if terms <= 2 * TERMS or turned else 2 * TERMS) * 2
    left = padded if terms < TERMS else min(_ceil(terms, TERMS // 2), 4 if terms <= 2 * TERMS else 3) * TERMS // 2 + 32
    return threads * (height * min(columns, COLUMNS) * 4 + right + turned * height * left * 2)


def _ceil(number: int, step: int) -> int:
    return -(-number // step)


def _forward(x: Tensor, weight: Tensor, y: Tensor) -> int:
    """Of channels last, the weight is turned and then blocked; else input and result are blocked, too."""
    if _is_last(x):
        return weight.nbytes * (1 + _has_taps(weight))
    return max(_copies(x) + weight.nbytes, y.nbytes)


def _backward(delta: Tensor, x: Tensor, weight: Tensor) -> int:
    """The gradients of input and weight come one after the other; that of the weight holds more."""
    held = weight.nbytes * (2 + _has_taps(weight)) + _copies(delta) + _copies(x)
    return held + (torch.get_num_threads() * 4 * weight.numel() + SUMS if weight.dtype in HALVES else 0)


def _has_taps(weight: Tensor) -> bool:
    return weight[0, 0].numel() > 1


def _is_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _copies(x: Tensor) -> int:
    """Count what is copied of an activation: nothing of channels last, blocks of plain ones, else that of a copy."""
    if _is_last(x):
        return 0
    channels = x.shape[1]
    blocks = 0 if channels < FEW else x.nbytes // channels * _ceil(channels, BLOCK) * BLOCK
    return blocks if x.is_contiguous() else x.nbytes + blocks
