"""Maximum pooling of batch-innermost activations, both ways.

Shape letters: C channels, H rows, W columns, Ho and Wo those of the result, N samples.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import (
    add_scaled,
    equal,
    fill,
    larger,
    larger_or,
    read,
    write,
    zero16,
    zero128,
)
from dstrun.backend.sparse.kernel.turns import begin, next_task
from dstrun.system.compiled import compiled


@compiled(parallel=True)
def maximum(x, y, tap, sizes, steps, threads):
    """Find the maximum of every window, and at which tap it is: the first, or the last NaN, as in PyTorch.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        y: flat (C, Ho, Wo, N), likewise; overwritten.
        tap: (C, Ho, Wo, N) bfloat16 bits, row in the window times its width plus column; overwritten.
        sizes: (C, H, W, Ho, Wo, N).
        steps: for rows then columns: the window's, stride, padding and dilation; so that taps are below 256.
        threads: how many work.
    """
    channels, height, width, out_height, out_width, lanes = sizes
    down, stride_y, up, dilation_y, across, stride_x, left, dilation_x = steps
    tasks = channels * out_height
    taken = begin(threads)
    for thread in prange(threads):
        plane = next_task(taken, thread, tasks)
        while plane < tasks:
            c, r = plane // out_height, plane % out_height
            for t in range(out_width):
                to = (plane * out_width + t) * lanes
                window = (c * height, r * stride_y - up, t * stride_x - left, height, width, lanes)
                at = 0
                while lanes - at >= 128:
                    _maximum(zero128(), x, y, tap, to, at, 128, window, (down, across, dilation_y, dilation_x))
                    at += 128
                while lanes > at:
                    count = min(16, lanes - at)
                    _maximum(zero16(), x, y, tap, to, at, count, window, (down, across, dilation_y, dilation_x))
                    at += 16
            plane = next_task(taken, thread, tasks)


@compiled()
def _maximum(zero, x, y, tap, to, at, count, window, taps):
    """Find the maxima of one tile."""
    first, top, start, height, width, lanes = window
    down, across, dilation_y, dilation_x = taps
    best, where, begun = zero, zero, False
    for i in range(down):
        row = top + i * dilation_y
        if row < 0 or row >= height:
            continue
        for j in range(across):
            column = start + j * dilation_x
            if column < 0 or column >= width:
                continue
            tile, here = read(x, ((first + row) * width + column) * lanes + at, count, zero), np.float32(i * across + j)
            if begun:
                where = larger_or(tile, best, fill(here, zero), where)
                best = larger(tile, best)
            else:
                best, where, begun = tile, fill(here, zero), True
    write(y, to + at, count, best)
    write(tap, to + at, count, where)


@compiled(parallel=True)
def maximum_backward(delta, tap, dx, sizes, steps, threads):
    """Sum up the gradients of all windows whose maximum an input is.

    Args:
        delta: flat (C, Ho, Wo, N), float32 or bfloat16 bits.
        tap: likewise, from ``maximum``.
        dx: flat (C, H, W, N); overwritten.
        sizes: as of ``maximum``.
        steps: as of ``maximum``.
        threads: how many work.
    """
    channels, height, width, out_height, out_width, lanes = sizes
    tasks = channels * height
    taken = begin(threads)
    for thread in prange(threads):
        plane = next_task(taken, thread, tasks)
        while plane < tasks:
            c, row = plane // height, plane % height
            for column in range(width):
                to = (plane * width + column) * lanes
                window = (c * out_height, row, column, out_height, out_width, lanes)
                at = 0
                while lanes - at >= 128:
                    _spread(zero128(), delta, tap, dx, to, at, 128, window, steps)
                    at += 128
                while lanes > at:
                    _spread(zero16(), delta, tap, dx, to, at, min(16, lanes - at), window, steps)
                    at += 16
            plane = next_task(taken, thread, tasks)


@compiled()
def _spread(zero, delta, tap, dx, to, at, count, window, steps):
    """Do so for one tile."""
    first, row, column, out_height, out_width, lanes = window
    down, stride_y, up, dilation_y, across, stride_x, left, dilation_x = steps
    tile = zero
    for i in range(down):
        y = row + up - i * dilation_y
        if y < 0 or y % stride_y or y // stride_y >= out_height:
            continue
        for j in range(across):
            x = column + left - j * dilation_x
            if x < 0 or x % stride_x or x // stride_x >= out_width:
                continue
            seen = ((first + y // stride_y) * out_width + x // stride_x) * lanes + at
            here = fill(np.float32(i * across + j), zero)
            tile = add_scaled(
                tile, np.float32(1), equal(read(tap, seen, count, zero), here, read(delta, seen, count, zero))
            )
    write(dx, to + at, count, tile)
