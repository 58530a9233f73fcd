"""The sparse products of a linear layer whose rows do not fit into the cache: rows are read block by block.

Every connection reads a row, and a random one of a large input comes from main memory. A block of rows that fits into
the cache is therefore used for all targets before the next one: each continues its list where the block before ended,
as sources ascend in it. Sums keep their order, and so their bits.

Shape letters: A active connections, D targets, S sources, G groups, N lanes.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import (
    add_product,
    add_scaled,
    fill,
    prefetch,
    read,
    total,
    write,
    zero16,
    zero64,
    zero128,
)
from dstrun.system.compiled import compiled

BLOCK = 1 << 23
"""Bytes of a block, or up to three times as many: it shares the third cache of 32 MB with what streams through it."""

ENOUGH, RUN = 32, 6
"""Connections of a target in a block, on average, from which on smaller blocks gain nothing more; and at least."""

AHEAD = 4
"""A row is asked for so many connections before it is used."""


@compiled()
def blocks_of(size, connections, targets, block):
    """Return in how many blocks rows are read: 1 where targets have too few connections in a block.

    Every block loads and stores all targets: of twice the size, it is slower to read and saves half of that.

    Args:
        size: bytes of all rows.
        connections: A.
        targets: D.
        block: bytes of a block.
    """
    each = connections / max(targets, 1)
    wanted = min(-(-size // block), max(-(-size // (2 * block)), int(each / ENOUGH)), int(each / RUN))
    return max(1, wanted) if wanted >= size // (3 * block) else 1


@compiled()
def is_wide(first, source, lanes):
    """Return whether blocks pay for the rows (S, N) of a source: there are several, and tiles are not narrow.

    Without blocks, asking for rows ahead gains nothing, and narrow tiles take 1.7 times as long.
    """
    size, targets = source.size // max(lanes, 1) * 128 * source.itemsize, first.shape[0] - 1
    return lanes >= 128 and size > 2 * BLOCK and blocks_of(size, first[targets], targets, BLOCK) > 1


@compiled()
def width_of(left):
    """Return the lanes of the next tile where so many are left."""
    return 128 if left >= 128 else 64 if left >= 64 else 16


@compiled()
def multiply_wide(connections, bias, source, target, sizes, threads, block):
    """Do as ``linear.multiply``, with blocks of so many bytes."""
    first, lanes = connections[0], sizes[2]
    targets, rows, at = first.shape[0] - 1, source.shape[0] // lanes, 0
    reached = np.empty(targets, first.dtype)
    while at < lanes:
        width = width_of(lanes - at)
        blocks = 1
        if target.itemsize == 4:  # else a sum that is not finished would be rounded
            blocks = blocks_of(rows * width * 4, first[targets], targets, block)
        for number in range(blocks):
            reach = (rows * (number + 1) // blocks, number == 0, number + 1 == blocks)
            _sums(connections, bias, source, target, sizes, (at, width), reach, reached, 4 * threads)
        at += width


@compiled(parallel=True)
def _sums(connections, bias, source, target, sizes, tile, reach, reached, chunks):
    """Add the rows of one block to one tile of lanes of all targets."""
    at, width = tile
    lanes = (at, min(width, sizes[2] - at))
    for chunk in prange(chunks):
        part = share(connections[0], chunk, chunks)
        if width == 128:
            _sum(zero128(), lanes, part, connections, bias, source, target, sizes, reach, reached)
        elif width == 64:
            _sum(zero64(), lanes, part, connections, bias, source, target, sizes, reach, reached)
        else:
            _sum(zero16(), lanes, part, connections, bias, source, target, sizes, reach, reached)


@compiled()
def _sum(zero, lanes, part, connections, bias, source, target, sizes, reach, reached):
    first, codes, weight = connections
    at, count = lanes
    limit, begins, ends = reach
    for d in range(part[0], part[1]):
        base, stop = d // sizes[1] * sizes[0], np.int64(first[d + 1])
        if begins:
            k, tile = np.int64(first[d]), fill(bias[d] if bias.shape[0] else np.float32(0), zero)
        else:
            k, tile = np.int64(reached[d]), read(target, d * sizes[2] + at, count, zero)
        while k < stop and base + codes[k] < limit:
            later = codes[min(k + AHEAD, stop - 1)]
            prefetch(source, min(base + later, limit - 1) * sizes[2] + at, zero)
            tile = add_scaled(tile, weight[k], read(source, (base + codes[k]) * sizes[2] + at, count, zero))
            k += 1
        write(target, d * sizes[2] + at, count, tile)
        if not ends:
            reached[d] = k


@compiled()
def sampled_wide(connections, x, delta, gradient, sizes, threads, block):
    """Do as ``linear.sampled``, with blocks of so many bytes."""
    first, lanes = connections[0], sizes[2]
    targets, rows, at = first.shape[0] - 1, x.shape[0] // lanes, 0
    reached = np.empty(targets, first.dtype)
    gradient[:] = 0
    while at < lanes:
        width = width_of(lanes - at)
        blocks = blocks_of(rows * width * x.itemsize, first[targets], targets, block)
        for number in range(blocks):
            reach = (rows * (number + 1) // blocks, number == 0, number + 1 == blocks)
            _dots(connections, x, delta, gradient, sizes, (at, width), reach, reached, 4 * threads)
        at += width


@compiled(parallel=True)
def _dots(connections, x, delta, gradient, sizes, tile, reach, reached, chunks):
    """Add what the rows of one block give to the connections, for one tile of lanes."""
    at, width = tile
    lanes = (at, min(width, sizes[2] - at))
    for chunk in prange(chunks):
        part = share(connections[0], chunk, chunks)
        if width == 128:
            _dot(zero128(), lanes, part, connections, x, delta, gradient, sizes, reach, reached)
        elif width == 64:
            _dot(zero64(), lanes, part, connections, x, delta, gradient, sizes, reach, reached)
        else:
            _dot(zero16(), lanes, part, connections, x, delta, gradient, sizes, reach, reached)


@compiled()
def _dot(zero, lanes, part, connections, x, delta, gradient, sizes, reach, reached):
    first, codes = connections
    at, count = lanes
    limit, begins, ends = reach
    for o in range(part[0], part[1]):
        base, stop = o // sizes[1] * sizes[0], np.int64(first[o + 1])
        k = np.int64(first[o]) if begins else np.int64(reached[o])
        tile = read(delta, o * sizes[2] + at, count, zero)
        while k < stop and base + codes[k] < limit:
            later = codes[min(k + AHEAD, stop - 1)]
            prefetch(x, min(base + later, limit - 1) * sizes[2] + at, zero)
            gradient[k] += total(add_product(zero, tile, read(x, (base + codes[k]) * sizes[2] + at, count, zero)))
            k += 1
        if not ends:
            reached[o] = k


@compiled()
def share(first, chunk, chunks):
    """Return the targets of one of several chunks of about as many connections."""
    targets = first.shape[0] - 1
    size = first[targets] / chunks
    start = np.searchsorted(first[:targets], np.int64(size * chunk)) if chunk else 0
    end = np.searchsorted(first[:targets], np.int64(size * (chunk + 1))) if chunk + 1 < chunks else targets
    return start, end
