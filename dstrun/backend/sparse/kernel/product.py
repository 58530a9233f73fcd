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

from dstrun.backend.sparse.kernel.simd import LANES, add_scaled, fill, read, write, zero16, zero64, zero128
from dstrun.backend.sparse.kernel.turns import begin, next_task
from dstrun.system.compiled import compiled

TILE = LANES[0]

TERMS = 16 * TILE
"""About so many numbers of a plane are worked on together: neighbouring rows, where rows are short."""


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
    height, width, lanes = sizes[4:]
    targets = first.shape[0] - 1
    block = lanes if lanes < 2 * TILE else TILE
    together = max(1, TERMS // (width * block))
    groups = (height + together - 1) // together
    chunks = 1 if groups >= 4 * threads else 4 * threads // groups
    share = first[targets] / chunks
    taps = _taps(sizes, steps)
    tasks = groups * chunks
    taken = begin(threads)
    for thread in prange(threads):
        task = next_task(taken, thread, tasks)
        while task < tasks:
            row, chunk = task // chunks * together, task % chunks
            start = np.searchsorted(first[:targets], np.int64(share * chunk)) if chunk else 0
            end = np.searchsorted(first[:targets], np.int64(share * (chunk + 1))) if chunk + 1 < chunks else targets
            for at in range(0, lanes, block):
                part = (row, min(together, height - row), start, end, at, min(block, lanes - at))
                _rows(part, connections, bias, source, target, sizes, steps, taps)
            task = next_task(taken, thread, tasks)


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
def _rows(part, connections, bias, source, target, sizes, steps, taps):
    """Fill ``count`` lanes, from ``at`` on, of some rows of the targets from ``start`` to ``end``.

    The connections of a target are listed by column of the kernel: at the border, whole columns drop out. Between the
    borders, columns that lie side by side in source and target are one run of numbers, however few the lanes. Rows in
    which no tap leaves the source share a list.
    """
    first, codes, weight = connections
    row, rows, start, end, at, count = part
    sources, source_height, source_width, targets, target_height, target_width, lanes = sizes
    ay, by, ax, bx = steps[2], steps[3], steps[6], steps[7]
    down = taps[1][: steps[1]]
    highest, lowest = down.min(), down.max()
    joined = ax == 1 and bx == 1 and count == lanes
    longest = 0
    for d in range(start, end):
        longest = max(longest, first[d + 1] - first[d])
    lists = np.empty(longest, np.int64), np.empty(longest, np.float32)
    buckets = np.empty((steps[0], longest), np.int64), np.empty((steps[0], longest), np.float32)
    ends, columns = np.zeros(steps[0] + 1, np.int64), np.zeros(steps[0], np.int64)
    for d in range(start, end):
        base = d // targets * sources * source_height * source_width * lanes + at
        initial = bias[d] if bias.shape[0] else np.float32(0)
        own = codes[first[d] : first[d + 1]], weight[first[d] : first[d + 1]]
        for phase in range(min(bx, target_width)):
            kept, listed = 0, -1
            for r in range(row, row + rows):
                whole = by == 1 and r * ay + highest >= 0 and r * ay + lowest < source_height
                if listed < 0 or not whole:
                    kept = _list(own, base, (r * ay, phase * ax), sizes, steps, taps, lists, buckets, ends, columns)
                    listed = r if whole else -1
                shift = (r - listed) * ay * source_width * lanes if listed >= 0 else 0
                low, high = _between(ends, columns, ax, source_width, target_width)
                plane = ((d * target_height + r) * target_width + phase) * lanes + at
                t = 0
                while t <= (target_width - phase - 1) // bx:
                    j0, j1, side_by_side = 0, kept, 1
                    if t < low or t >= high:
                        j0, j1 = _inside(ends, columns, t * ax, source_width)
                    elif joined:
                        side_by_side = high - t
                    terms, seen = (lists[0][j0:j1], lists[1][j0:j1]), t * ax * lanes + shift
                    _sum(terms, source, seen, initial, target, plane + t * bx * lanes, side_by_side * count)
                    t += side_by_side


@compiled()
def _list(own, base, place, sizes, steps, taps, lists, buckets, ends, columns):
    """List the connections of a target that see the source from the target's row, by column of the kernel.

    Args:
        own: codes and weights of the target's connections.
        base: where its group of the source begins.
        place: of the row, and of the first column, in steps of the source.
        sizes: as of ``product``.
        steps: as of ``product``.
        taps: as ``_taps`` decodes them.
        lists: filled with where the source is read, and the weights.
        buckets: room for a list a column.
        ends: filled with where the list of each column ends.
        columns: filled with the source column that each column of the kernel sees first.

    Returns:
        How many connections are listed.
    """
    source_height, source_width, lanes = sizes[1], sizes[2], sizes[6]
    kernel_width, by, bx = steps[0], steps[3], steps[7]
    shift, down, across = taps
    ends[:] = 0
    for k in range(own[0].shape[0]):
        code = own[0][k]
        y, x = place[0] + down[code], place[1] + across[code]
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
        tap = code % kernel_width
        n = ends[tap + 1]
        buckets[0][tap, n] = base + shift[code] + (y * source_width + x) * lanes
        buckets[1][tap, n] = own[1][k]
        columns[tap] = x
        ends[tap + 1] = n + 1
    kept = 0
    for tap in range(kernel_width):
        for j in range(ends[tap + 1]):
            lists[0][kept], lists[1][kept] = buckets[0][tap, j], buckets[1][tap, j]
            kept += 1
        ends[tap + 1] = kept
    return kept


@compiled()
def _between(ends, columns, ax, source_width, target_width):
    """Return the columns of the target, from first to last, from which all listed taps see the source."""
    low, high = 0, target_width
    for tap in range(columns.shape[0]):
        if ends[tap + 1] > ends[tap]:
            low = max(low, -(columns[tap] // ax))
            high = min(high, (source_width - 1 - columns[tap]) // ax + 1)
    return low, high


@compiled()
def _sum(terms, source, shift, initial, target, to, length):
    """Fill a run of ``length`` numbers of the target, from ``to`` on, with the sum of weighted runs of the source."""
    at = 0
    while length - at >= 128:
        _tile(zero128(), 128, terms, source, shift + at, initial, target, to + at)
        at += 128
    while length - at >= 64:
        _tile(zero64(), 64, terms, source, shift + at, initial, target, to + at)
        at += 64
    while length > at:
        _tile(zero16(), min(16, length - at), terms, source, shift + at, initial, target, to + at)
        at += 16


@compiled()
def _tile(zero, count, terms, source, shift, initial, target, to):
    """Fill one tile of a run; it is summed in registers."""
    offset, value = terms
    tile = fill(initial, zero)
    for j in range(offset.shape[0]):
        tile = add_scaled(tile, value[j], read(source, offset[j] + shift, count, zero))
    write(target, to, count, tile)


@compiled()
def _inside(ends, columns, shift, width):
    """Return the range of the list whose taps see a column inside the source: they are neighbours."""
    low, high = 0, 0
    for tap in range(columns.shape[0]):
        if ends[tap + 1] > ends[tap] and 0 <= columns[tap] + shift < width:
            if high == 0:
                low = ends[tap]
            high = ends[tap + 1]
    return low, high
