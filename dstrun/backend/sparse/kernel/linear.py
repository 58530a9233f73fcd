"""The sparse products of a linear layer, or of a 1x1 convolution: sums of weighted rows, and products of two rows.

Where the lanes are many, rows lie a power of two apart and tiles of them fall into few sets of the cache: the tiles of
all rows are then copied side by side before they are used. The processor does not foresee such short pieces of distant
rows, so they are asked for before they are read, and large outputs are written past the caches. Rows that do not fit
into the cache are read block by block, where that pays (``wide``).

Shape letters: A active connections, D targets, S sources, G groups, N lanes.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import (
    add_product,
    add_scaled,
    aligned,
    fill,
    goes_past,
    prefetch,
    put,
    read,
    settle,
    total,
    write,
    zero16,
    zero64,
    zero128,
)
from dstrun.backend.sparse.kernel.wide import AHEAD, BLOCK, is_wide, multiply_wide, sampled_wide, share
from dstrun.system.compiled import compiled

LANES = 1024
"""From so many lanes on, tiles are copied."""

ROWS = 2048
"""Of at most so many rows: tiles of that many fill a second cache of 1 MiB."""

REUSE = 2
"""Where a row is used so many times on average."""


@compiled()
def multiply(connections, bias, source, target, sizes, threads):
    """Sum source rows into target rows.

    Args:
        connections: the arrays (D + 1,) first connection of every target; (A,) source of each, in its group; (A,)
            weights, float32.
        bias: (D,) float32, or empty.
        source: flat (S, N), float32 or bfloat16 bits.
        target: flat (D, N), likewise; overwritten.
        sizes: (S / G, D / G, N).
        threads: how many work.
    """
    first = connections[0]
    targets, lanes = first.shape[0] - 1, sizes[2]
    if target.itemsize == 4 and is_wide(first, source, lanes):
        multiply_wide(connections, bias, source, target, sizes, threads, BLOCK)
        return
    rows = source.shape[0] // lanes
    copied = lanes // 128 if lanes >= LANES and rows <= ROWS and first[targets] >= REUSE * rows else 0
    if copied:
        _tiles(connections, bias, source, target, sizes, min(threads, copied))
    if lanes > copied * 128:
        _rest(connections, bias, source, target, sizes, 4 * threads, copied * 128)


@compiled(parallel=True)
def _tiles(connections, bias, source, target, sizes, workers):
    """Compute the lanes that fill whole tiles, from copies; tiles are shared out among threads."""
    targets, lanes = connections[0].shape[0] - 1, sizes[2]
    rows = source.shape[0] // lanes
    past = goes_past(target, lanes)
    for worker in prange(workers):
        panel = aligned(rows * 128)
        for at in range(worker * 128, lanes - 127, workers * 128):
            _copy(source, lanes, at, panel)
            _part(zero128(), (0, 128), (at, 128), (0, targets), connections, bias, panel, target, sizes, past)
        settle()


@compiled(parallel=True)
def _rest(connections, bias, source, target, sizes, chunks, begin):
    """Compute the lanes from ``begin`` on, without copies; targets are shared out among threads."""
    first, lanes = connections[0], sizes[2]
    for chunk in prange(chunks):
        part, at = share(first, chunk, chunks), begin
        while lanes - at >= 128:
            _part(zero128(), (at, lanes), (at, 128), part, connections, bias, source, target, sizes, False)
            at += 128
        while lanes - at >= 64:
            _part(zero64(), (at, lanes), (at, 64), part, connections, bias, source, target, sizes, False)
            at += 64
        while lanes > at:
            _part(
                zero16(), (at, lanes), (at, min(16, lanes - at)), part, connections, bias, source, target, sizes, False
            )
            at += 16


@compiled()
def sampled(connections, x, delta, gradient, sizes, threads):
    """Sum the products of output gradients with inputs, for every connection.

    Args:
        connections: the arrays (D + 1,) first connection of every output; (M,) input of each, in its group.
        x: flat (S, N), float32 or bfloat16 bits.
        delta: flat (D, N), likewise.
        gradient: (M,) float32; overwritten.
        sizes: (S / G, D / G, N).
        threads: how many work.
    """
    if is_wide(connections[0], x, sizes[2]):
        sampled_wide(connections, x, delta, gradient, sizes, threads, BLOCK)
    else:
        _dots(connections, x, delta, gradient, sizes, threads)


@compiled(parallel=True)
def _dots(connections, x, delta, gradient, sizes, threads):
    first, lanes = connections[0], sizes[2]
    rows = x.shape[0] // lanes
    copies = lanes >= LANES and rows <= ROWS and first[-1] >= REUSE * rows * threads
    chunks = threads if copies else 4 * threads
    gradient[:] = 0
    for chunk in prange(chunks):
        part, at = share(first, chunk, chunks), 0
        panel = aligned(rows * 128 if copies else 0)
        while lanes - at >= 128:
            if copies:
                _copy(x, lanes, at, panel)
                _products(zero128(), (0, 128), (at, 128), part, connections, panel, delta, gradient, sizes)
            else:
                _products(zero128(), (at, lanes), (at, 128), part, connections, x, delta, gradient, sizes)
            at += 128
        while lanes - at >= 64:
            _products(zero64(), (at, lanes), (at, 64), part, connections, x, delta, gradient, sizes)
            at += 64
        while lanes > at:
            _products(zero16(), (at, lanes), (at, min(16, lanes - at)), part, connections, x, delta, gradient, sizes)
            at += 16


@compiled()
def _copy(source, lanes, at, panel):
    """Put the tiles of all rows at one lane side by side."""
    rows = panel.shape[0] // 128
    for row in range(rows):
        prefetch(source, min(row + AHEAD, rows - 1) * lanes + at, zero128())
        write(panel, row * 128, 128, read(source, row * lanes + at, 128, zero128()))


@compiled()
def _products(zero, origin, lanes, part, connections, x, delta, gradient, sizes):
    """Add what one tile of lanes gives to the connections of some outputs; x begins and steps as in ``_part``."""
    first, codes = connections
    at, count = lanes
    begin, stride = origin
    for o in range(part[0], part[1]):
        base = o // sizes[1] * sizes[0]
        prefetch(delta, min(o + AHEAD, part[1] - 1) * sizes[2] + at, zero)
        tile = read(delta, o * sizes[2] + at, count, zero)
        for k in range(first[o], first[o + 1]):
            row = read(x, begin + (base + codes[k]) * stride, count, zero)
            gradient[k] += total(add_product(zero, tile, row))


@compiled()
def _part(zero, origin, lanes, part, connections, bias, source, target, sizes, past):
    """Fill one tile of lanes, the first and how many, of some targets from a source that begins and steps so.

    ``past`` writes it past the caches: a whole tile, on whole cache lines.
    """
    first, codes, weight = connections
    at, count = lanes
    begin, stride = origin
    for d in range(part[0], part[1]):
        base = d // sizes[1] * sizes[0]
        tile = fill(bias[d] if bias.shape[0] else np.float32(0), zero)
        for k in range(first[d], first[d + 1]):
            tile = add_scaled(tile, weight[k], read(source, begin + (base + codes[k]) * stride, count, zero))
        put(target, d * sizes[2] + at, count, tile, past)
