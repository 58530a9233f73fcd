"""Conversion to batch-innermost memory, (C, H, W, N): transposes of 16 x 16 numbers in registers.

Shape letters: L planes, R rows, K columns; C, H, W, N as everywhere.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

from numba import prange
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dstrun.backend.sparse.kernel.call import array, threads, works
from dstrun.backend.sparse.kernel.simd import goes_past, settle, transpose16
from dstrun.system.compiled import compiled

ROWS, COLUMNS = 256, 64
"""Rows and columns of one task: together they fit in the second cache."""


def batch_innermost(x: Tensor) -> Tensor:
    """Return (C, H, W, N) contiguous, without a copy where it is.

    Fast where the memory is (N, C, H, W) or, channels last, (N, H, W, C); what else there is goes through PyTorch. As
    functions of PyTorch, it can be replaced (``torch.overrides``).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(batch_innermost, (x,), x)
    channels, height, width, samples = x.shape
    positions = height * width
    if x.is_contiguous() or x.numel() == 0 or not works(x):
        return x.contiguous()
    for order, planes, columns in (((3, 0, 1, 2), 1, channels * positions), ((3, 1, 2, 0), positions, channels)):
        stored = x.permute(order)
        if stored.is_contiguous():
            y = x.new_empty(x.shape)
            sizes, strides = (planes, samples, columns), (columns, planes * columns, samples, planes * samples)
            threads()
            transpose_planes(array(stored), array(y), sizes, strides)
            return y
    return x.contiguous()


def batch_outermost(x: Tensor) -> Tensor:
    """Return a contiguous tensor (N, C, H, W) of one (C, H, W, N): what PyTorch's convolutions would make of it."""
    samples = x.shape[-1]
    if x.numel() == 0 or not works(x) or not x.is_contiguous():
        return x.permute(3, 0, 1, 2).contiguous()
    y = x.new_empty((samples, *x.shape[:3]))
    rows = x.numel() // samples
    threads()
    transpose_planes(array(x), array(y), (1, rows, samples), (0, samples, 0, rows))
    return y


@compiled(parallel=True)
def transpose_planes(source, target, sizes, strides):
    """Transpose every plane of R rows and K columns.

    Args:
        source: flat, float32 or bfloat16 bits; the columns of a row are neighbours.
        target: flat, likewise; the rows of a column are neighbours; overwritten.
        sizes: (L, R, K).
        strides: from plane to plane and from row to row of the source, from plane to plane and from column to column
            of the target.
    """
    planes, rows, columns = sizes
    down, across = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
    past = target.itemsize == 4 and goes_past(target, strides[2]) and goes_past(target, strides[3])
    for task in prange(planes * down * across):
        plane, top, left = task // (down * across), task // across % down * ROWS, task % across * COLUMNS
        _block(source, target, plane, (top, min(rows, top + ROWS)), (left, min(columns, left + COLUMNS)), strides, past)
        if past:
            settle()


@compiled()
def _block(source, target, plane, rows, columns, strides, past):
    """Transpose some rows and columns of a plane."""
    source_plane, stride, target_plane, pitch = strides
    base, to = plane * source_plane, plane * target_plane
    for column in range(columns[0], columns[1], 16):
        for row in range(rows[0], rows[1], 16):
            if rows[1] - row >= 16 and columns[1] - column >= 16:
                begin, end = base + row * stride + column, to + column * pitch + row
                if past:
                    transpose16(source, begin, stride, target, end, pitch, True)
                else:
                    transpose16(source, begin, stride, target, end, pitch, False)
                continue
            for r in range(row, min(rows[1], row + 16)):
                for k in range(column, min(columns[1], column + 16)):
                    target[to + k * pitch + r] = source[base + r * stride + k]
