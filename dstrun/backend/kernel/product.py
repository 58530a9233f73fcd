"""The sparse product: every output is a weighted sum of shifted input planes (forward, and backward to the input).

Activations lie batch-innermost, (C, H, W, N): one position of one channel is N contiguous numbers, and a tile of them
is summed in registers over all connections of an output. The backward pass to the input is the same sum with the
connections sorted by input and the taps mirrored.

Shape letters: A active connections, D targets, S sources, G groups, T taps, N samples.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.kernel.simd import add_scaled, fill, read, write, zero16, zero64, zero128
from dstrun.compiled import compiled


@compiled(parallel=True)
def product(connections, bias, source, target, sizes, steps, threads):
    """Sum shifted source planes into target planes.

    Args:
        connections: the arrays (D + 1,) first connection of every target; (A,) code of each, which is its source in
            the group, times T, plus the tap; (A,) weights, float32.
        bias: (D,) float32, or empty.
        source: flat (S, Hs, Ws, N), float32 or bfloat16 bits.
        target: flat (D, Hd, Wd, N), likewise; overwritten.
        sizes: (S / G, Hs, Ws, D / G, Hd, Wd, N).
        steps: kernel width, T, and for rows then columns: a, b, e, f. Target position t sees source position
            (t a + tap e + f) / b where that is whole and inside.
        threads: how many work.
    """
    first = connections[0]
    height, lanes = sizes[4], sizes[6]
    targets = first.shape[0] - 1
    chunks = 1 if height >= 4 * threads else 4 * threads // height
    share = first[targets] / chunks
    taps = _taps(sizes, steps)
    for task in prange(height * chunks):
        row, chunk = task // chunks, task % chunks
        start = np.searchsorted(first[:targets], np.int64(share * chunk)) if chunk else 0
        end = np.searchsorted(first[:targets], np.int64(share * (chunk + 1))) if chunk + 1 < chunks else targets
        part, at = (row, start, end), 0
        while lanes - at >= 128:
            _row(zero128(), at, 128, part, connections, bias, source, target, sizes, steps, taps)
            at += 128
        while lanes - at >= 64:
            _row(zero64(), at, 64, part, connections, bias, source, target, sizes, steps, taps)
            at += 64
        while lanes > at:
            _row(zero16(), at, min(16, lanes - at), part, connections, bias, source, target, sizes, steps, taps)
            at += 16


@compiled()
def _taps(sizes, steps):
    """Decode every code once: where its source plane begins in the group, and what its tap adds to y and x."""
    sources, height, width, lanes = sizes[0], sizes[1], sizes[2], sizes[6]
    kernel_width, taps, _, _, ey, fy, _, _, ex, fx = steps
    shift, down, across = np.empty((3, sources * taps), np.int64)
    for code in range(sources * taps):
        tap = code % taps
        shift[code] = code // taps * height * width * lanes
        down[code] = tap // kernel_width * ey + fy
        across[code] = tap % kernel_width * ex + fx
    return shift, down, across


@compiled()
def _row(zero, at, count, part, connections, bias, source, target, sizes, steps, taps):
    """Fill one tile of lanes of the targets from ``start`` to ``end``, in one row.

    The connections of a target are listed by column of the kernel: at the border, whole columns drop out.
    """
    first, codes, weight = connections
    row, start, end = part
    sources, source_height, source_width, targets, target_height, target_width, lanes = sizes
    ay, by, ax, bx = steps[2], steps[3], steps[6], steps[7]
    shift, down, across = taps
    width_of_kernel = steps[0]
    longest = 0
    for d in range(start, end):
        longest = max(longest, first[d + 1] - first[d])
    offset, value = np.empty(longest, np.int64), np.empty(longest, np.float32)
    bucket_offset = np.empty((width_of_kernel, longest), np.int64)
    bucket_value = np.empty((width_of_kernel, longest), np.float32)
    ends, columns = np.zeros(width_of_kernel + 1, np.int64), np.zeros(width_of_kernel, np.int64)
    for d in range(start, end):
        base = d // targets * sources * source_height * source_width * lanes + at
        initial = bias[d] if bias.shape[0] else np.float32(0)
        for phase in range(min(bx, target_width)):
            ends[:] = 0
            for k in range(first[d], first[d + 1]):
                code = codes[k]
                y, x = row * ay + down[code], phase * ax + across[code]
                if by > 1:
                    if y % by:
                        continue
                    y //= by
                if bx > 1:
                    if x % bx:
                        continue
                    x //= bx
                if y < 0 or y >= source_height:
                    continue
                tap = code % width_of_kernel
                n = ends[tap + 1]
                bucket_offset[tap, n] = base + shift[code] + (y * source_width + x) * lanes
                bucket_value[tap, n] = weight[k]
                columns[tap] = x
                ends[tap + 1] = n + 1
            low, high, kept = 0, target_width, 0
            for tap in range(width_of_kernel):
                n = ends[tap + 1]
                if n:
                    low = max(low, -(columns[tap] // ax))
                    high = min(high, (source_width - 1 - columns[tap]) // ax + 1)
                for j in range(n):
                    offset[kept] = bucket_offset[tap, j]
                    value[kept] = bucket_value[tap, j]
                    kept += 1
                ends[tap + 1] = kept
            plane = ((d * target_height + row) * target_width + phase) * lanes + at
            for t in range((target_width - phase - 1) // bx + 1):
                j0, j1 = 0, kept
                if t < low or t >= high:
                    j0, j1 = _inside(ends, columns, t * ax, source_width)
                step = t * ax * lanes
                tile = fill(initial, zero)
                for j in range(j0, j1):
                    tile = add_scaled(tile, value[j], read(source, offset[j] + step, count, zero))
                write(target, plane + t * bx * lanes, count, tile)


@compiled()
def _inside(ends, columns, shift, width):
    """Give the range of the list whose taps see a column inside the source: they are neighbours."""
    low, high = 0, 0
    for tap in range(columns.shape[0]):
        if ends[tap + 1] > ends[tap] and 0 <= columns[tap] + shift < width:
            if high == 0:
                low = ends[tap]
            high = ends[tap + 1]
    return low, high
