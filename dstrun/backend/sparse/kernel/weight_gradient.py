"""The sampled product: the gradient of single connections, active ones or candidates.

Each is the inner product of an output's gradient with the shifted plane of an input. Batch-innermost activations as in
``product``; rows are summed in a number of parts that does not depend on the threads, so every sum has one order.

Shape letters: M connections, O outputs, C input channels, G groups, T taps, N samples.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.product import TERMS, TILE
from dstrun.backend.sparse.kernel.simd import add_product, read, total, zero16, zero64, zero128
from dstrun.backend.sparse.kernel.turns import begin, next_task
from dstrun.system.compiled import compiled

PARTS = 8
"""In so many parts rows are summed, where connections are few: all inputs of a part are near when its outputs come."""

PARTIAL = 1 << 17
"""Sums that these parts may have together."""


@compiled(parallel=True)
def weight_gradient(connections, x, delta, gradient, sizes, steps, threads):
    """Sum the products of output gradients with inputs, for every connection.

    Args:
        connections: the arrays (O + 1,) first connection of every output; (M,) code of each, which is its channel in
            the group, times T, plus the tap.
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        delta: flat (O, Ho, Wo, N), likewise.
        gradient: (M,) float32; overwritten.
        sizes: (C / G, H, W, O / G, Ho, Wo, N).
        steps: kernel width, T, then row stride, row dilation, row padding, and the same of columns.
        threads: how many work.
    """
    first = connections[0]
    outputs, height, lanes = first.shape[0] - 1, sizes[4], sizes[6]
    block = lanes if lanes < 2 * TILE else TILE
    together = max(1, TERMS // max(1, sizes[5] * block))
    groups = (height + together - 1) // together
    parts = max(1, min(groups, PARTS, PARTIAL // max(1, first[outputs])))
    chunks = max(1, 4 * threads // parts)
    share = first[outputs] / chunks
    partial = np.zeros((parts, first[outputs]), np.float32)
    tasks = parts * chunks
    taken = begin(threads)
    for thread in prange(threads):
        task = next_task(taken, thread, tasks)
        while task < tasks:
            place, chunk = task // chunks, task % chunks
            start = np.searchsorted(first[:outputs], np.int64(share * chunk)) if chunk else 0
            end = np.searchsorted(first[:outputs], np.int64(share * (chunk + 1))) if chunk + 1 < chunks else outputs
            for group in range(groups * place // parts, groups * (place + 1) // parts):
                row = group * together
                for at in range(0, lanes, block):
                    part = (row, min(together, height - row), start, end, at, min(block, lanes - at))
                    _rows(part, connections, x, delta, partial[place], sizes, steps)
            task = next_task(taken, thread, tasks)
    gradient[:] = partial[0]
    for place in range(1, parts):
        gradient += partial[place]


@compiled()
def _rows(part, connections, x, delta, gradient, sizes, steps):
    """Add what ``count`` lanes, from ``at`` on, of some rows of positions give to the connections of some outputs.

    Columns that lie side by side in both planes are one run of numbers, however few the lanes.
    """
    first, codes = connections
    row, rows, start, end, at, count = part
    channels, height, width, outputs, out_height, out_width, lanes = sizes
    kernel_width, taps, stride_y, dilation_y, padding_y, stride_x, dilation_x, padding_x = steps
    joined = stride_x == 1 and count == lanes
    for o in range(start, end):
        base = o // outputs * channels
        plane = (o * out_height + row) * out_width * lanes + at
        for k in range(first[o], first[o + 1]):
            c = codes[k] // taps
            tap = codes[k] - c * taps
            tap_row = tap // kernel_width
            yi = row * stride_y + tap_row * dilation_y - padding_y
            xi = (tap - tap_row * kernel_width) * dilation_x - padding_x
            low = max(0, -(xi // stride_x))
            high = min(out_width, (width - 1 - xi) // stride_x + 1)
            step, length = (max(1, high - low), (high - low) * lanes) if joined else (1, count)
            offset = ((base + c) * height * width + xi) * lanes + at
            wide, middle, narrow = zero128(), zero64(), zero16()
            for r in range(rows):
                y = yi + r * stride_y
                if 0 <= y < height:
                    for t in range(low, high, step):
                        one, other = plane + (r * out_width + t) * lanes, offset + (y * width + t * stride_x) * lanes
                        done = 0
                        while length - done >= 128:
                            wide = _more(wide, 128, delta, one + done, x, other + done)
                            done += 128
                        while length - done >= 64:
                            middle = _more(middle, 64, delta, one + done, x, other + done)
                            done += 64
                        while length > done:
                            narrow = _more(narrow, min(16, length - done), delta, one + done, x, other + done)
                            done += 16
            gradient[k] += total(wide)
            if length % 128:
                gradient[k] += total(middle) + total(narrow)


@compiled()
def _more(tile, count, delta, one, x, other):
    """Add products of ``count`` neighbours to a tile."""
    return add_product(tile, read(delta, one, count, tile), read(x, other, count, tile))
