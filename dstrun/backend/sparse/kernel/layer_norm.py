"""Layer normalization of batch-innermost activations: a tile of lanes is read once and normalized in the cache.

Rows lie a power of two apart, and a tile of all of them falls into few sets of the cache: they are copied side by side.
Sums over the features of a lane have one order; those over lanes have a number of parts that does not depend on the
threads.

Shape letters: D features, L lanes.
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

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
    zero128,
)
from dstrun.backend.sparse.kernel.turns import begin, next_task
from dstrun.backend.sparse.kernel.wide import AHEAD
from dstrun.system.compiled import compiled

TILE, NARROW = 128, 16
PARTS = 64
"""In so many parts the gradients of weight and bias are summed."""


@compiled(parallel=True)
def layer_normalize(x, weight, bias, epsilon, y, threads):
    """Bring every lane to mean 0 and deviation 1; scale and shift every feature.

    Args:
        x: flat (D, L), float32 or bfloat16 bits.
        weight: (D,) float32.
        bias: (D,) float32.
        epsilon: added to the variance.
        y: like x; overwritten.
        threads: how many work.
    """
    lanes = x.shape[0] // weight.shape[0]
    tasks = (lanes + TILE - 1) // TILE
    taken = begin(threads)
    for thread in prange(threads):
        panel, inverse = aligned(weight.shape[0] * TILE), aligned(TILE)
        task = next_task(taken, thread, tasks)
        while task < tasks:
            at = task * TILE
            if lanes - at >= TILE:
                _normalize(zero128(), (lanes, at, TILE, TILE), x, weight, bias, epsilon, y, panel, inverse)
            else:
                for start in range(at, lanes, NARROW):
                    part = lanes, start, min(NARROW, lanes - start), NARROW
                    _normalize(zero16(), part, x, weight, bias, epsilon, y, panel, inverse)
            task = next_task(taken, thread, tasks)
        settle()


@compiled(parallel=True)
def layer_normalize_backward(x, weight, epsilon, delta, dx, partial, threads):
    """Compute the gradients of ``layer_normalize``.

    Args:
        x: flat (D, L), float32 or bfloat16 bits.
        weight: (D,) float32.
        epsilon: as in the forward pass.
        delta: the gradient of y, like x.
        dx: the gradient of x, like it; overwritten.
        partial: flat (2, PARTS, D) float32; overwritten with parts of the gradients of weight and bias.
        threads: how many work.
    """
    lanes, size = x.shape[0] // weight.shape[0], weight.shape[0]
    tiles = (lanes + TILE - 1) // TILE
    taken = begin(threads)
    partial[:] = 0
    for thread in prange(threads):
        panels, inverse = (aligned(size * TILE), aligned(size * TILE)), aligned(TILE)
        task = next_task(taken, thread, PARTS)
        while task < PARTS:
            sums = partial[task * size : (task + 1) * size], partial[(PARTS + task) * size : (PARTS + task + 1) * size]
            for tile in range(tiles * task // PARTS, tiles * (task + 1) // PARTS):
                at = tile * TILE
                if lanes - at >= TILE:
                    _return(zero128(), (lanes, at, TILE, TILE), x, weight, epsilon, delta, dx, sums, panels, inverse)
                else:
                    for start in range(at, lanes, NARROW):
                        part = lanes, start, min(NARROW, lanes - start), NARROW
                        _return(zero16(), part, x, weight, epsilon, delta, dx, sums, panels, inverse)
            task = next_task(taken, thread, PARTS)
        settle()


@compiled()
def _center(zero, part, x, size, epsilon, panel, inverse):
    """Copy one tile, less its mean, into the panel; return one over its deviation."""
    lanes, at, count, width = part
    one, share = np.float32(1), np.float32(1 / size)
    plain = zero
    for d in range(size):
        prefetch(x, min(d + AHEAD, size - 1) * lanes + at, zero)
        tile = read(x, d * lanes + at, count, zero)
        plain = add_scaled(plain, one, tile)
        write(panel, d * width, width, tile)
    mean, squares = add_scaled(zero, share, plain), zero
    for d in range(size):
        gap = add_scaled(read(panel, d * width, width, zero), -one, mean)
        squares = add_product(squares, gap, gap)
        write(panel, d * width, width, gap)
    write(inverse, 0, width, squares)
    for lane in range(width):
        inverse[lane] = np.float32(1 / np.sqrt(np.float64(inverse[lane]) / size + epsilon))
    return read(inverse, 0, width, zero)


@compiled()
def _normalize(zero, part, x, weight, bias, epsilon, y, panel, inverse):
    """Normalize one tile."""
    lanes, at, count, width = part
    scale = _center(zero, part, x, weight.shape[0], epsilon, panel, inverse)
    past = count == TILE and goes_past(y, lanes)
    for d in range(weight.shape[0]):
        tile = add_product(zero, read(panel, d * width, width, zero), scale)
        put(y, d * lanes + at, count, add_scaled(fill(bias[d], zero), weight[d], tile), past)


@compiled()
def _return(zero, part, x, weight, epsilon, delta, dx, sums, panels, inverse):
    """Compute the gradient of one tile, and add what it gives to those of weight and bias."""
    lanes, at, count, width = part
    size, (panel, pushes) = weight.shape[0], panels
    scale = _center(zero, part, x, size, epsilon, panel, inverse)
    plain, weighted = zero, zero
    for d in range(size):
        normal = add_product(zero, read(panel, d * width, width, zero), scale)
        prefetch(delta, min(d + AHEAD, size - 1) * lanes + at, zero)
        push = read(delta, d * lanes + at, count, zero)
        sums[0][d] += total(add_product(zero, push, normal))
        sums[1][d] += total(push)
        push = add_scaled(zero, weight[d], push)
        plain, weighted = add_scaled(plain, np.float32(1), push), add_product(weighted, push, normal)
        write(panel, d * width, width, normal)
        write(pushes, d * width, width, push)
    share, past = np.float32(-1 / size), count == TILE and goes_past(dx, lanes)
    plain, weighted = add_scaled(zero, share, plain), add_scaled(zero, share, weighted)
    for d in range(size):
        push = add_scaled(read(pushes, d * width, width, zero), np.float32(1), plain)
        push = add_product(push, read(panel, d * width, width, zero), weighted)
        put(dx, d * lanes + at, count, add_product(zero, push, scale), past)
