"""The sampled product: the gradient of single connections, active ones or candidates.

Each is the inner product of an output's gradient with the shifted plane of an input. Batch-innermost activations as in
``product``; outputs are shared out among threads, so every sum has one order.

Shape letters: M connections, O outputs, C input channels, G groups, T taps, N samples.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.kernel.simd import add_product, read, total, zero16, zero64, zero128
from dstrun.compiled import compiled

POSITIONS = 16
"""About so many positions are summed in registers before the lanes are added up."""


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
    chunks = 4 * threads
    share = first[outputs] / chunks
    gradient[:] = 0
    together = max(1, POSITIONS // sizes[5])
    for chunk in prange(chunks):
        start = np.searchsorted(first[:outputs], np.int64(share * chunk)) if chunk else 0
        end = np.searchsorted(first[:outputs], np.int64(share * (chunk + 1))) if chunk + 1 < chunks else outputs
        for row in range(0, height, together):
            part, at = (row, min(together, height - row), start, end), 0
            while lanes - at >= 128:
                _rows(zero128(), at, 128, part, connections, x, delta, gradient, sizes, steps)
                at += 128
            while lanes - at >= 64:
                _rows(zero64(), at, 64, part, connections, x, delta, gradient, sizes, steps)
                at += 64
            while lanes > at:
                _rows(zero16(), at, min(16, lanes - at), part, connections, x, delta, gradient, sizes, steps)
                at += 16


@compiled()
def _rows(zero, at, count, part, connections, x, delta, gradient, sizes, steps):
    """Add what one tile of lanes of some rows of positions gives to the connections of some outputs."""
    first, codes = connections
    row, rows, start, end = part
    channels, height, width, outputs, out_height, out_width, lanes = sizes
    kernel_width, taps, stride_y, dilation_y, padding_y, stride_x, dilation_x, padding_x = steps
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
            offset = ((base + c) * height * width + xi) * lanes + at
            tile = zero
            for r in range(rows):
                y = yi + r * stride_y
                if 0 <= y < height:
                    for t in range(low, high):
                        one = read(delta, plane + (r * out_width + t) * lanes, count, zero)
                        other = read(x, offset + (y * width + t * stride_x) * lanes, count, zero)
                        tile = add_product(tile, one, other)
            gradient[k] += total(tile)
