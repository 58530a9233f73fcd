"""Batch normalization of batch-innermost activations: one pass for the statistics, one for the result, both ways.

Mean and variance are summed in float32 about the mean so far, in blocks that are put together in float64: they hold
where the mean is large beside the deviation. Channels are shared out among threads, so every sum has one order.

Shape letters: C channels, L numbers of a channel (H W N).
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import (
    add_product,
    add_scaled,
    fill,
    keep,
    passed,
    read,
    rounded,
    total,
    write,
    zero16,
    zero128,
)
from dstrun.backend.sparse.kernel.turns import begin, next_task
from dstrun.system.compiled import compiled

BLOCK = 4096
"""Numbers summed in float32 before they are added up in float64."""


@compiled(parallel=True)
def moments(x, mean, variance, threads):
    """Find the mean and the variance of every channel.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        mean: (C,) float32; overwritten.
        variance: (C,) float32, that of the numbers themselves (divided by L); overwritten.
        threads: how many work.
    """
    length = x.shape[0] // mean.shape[0]
    taken = begin(threads)
    for thread in prange(threads):
        c = next_task(taken, thread, mean.shape[0])
        while c < mean.shape[0]:
            mean[c], variance[c] = _moments(x, c * length, length)
            c = next_task(taken, thread, mean.shape[0])


@compiled(parallel=True)
def normalize(x, other, weight, bias, epsilon, mean, variance, rectified, y, threads):
    """Bring every channel to mean ``bias`` and deviation ``weight``; add what is to be added, and rectify.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        other: like x, what is added; or empty.
        weight: (C,) float32.
        bias: (C,) float32.
        epsilon: added to the variance.
        mean: (C,) float32.
        variance: (C,) float32.
        rectified: whether what is below 0 becomes 0.
        y: like x; overwritten.
        threads: how many work.
    """
    length = x.shape[0] // weight.shape[0]
    taken = begin(threads)
    for thread in prange(threads):
        c = next_task(taken, thread, weight.shape[0])
        while c < weight.shape[0]:
            scale = np.float32(weight[c] / np.sqrt(np.float64(variance[c]) + epsilon))
            _affine(zero128(), zero16(), (x, other, y), c * length, length, (mean[c], scale, bias[c]), rectified)
            c = next_task(taken, thread, weight.shape[0])


@compiled(parallel=True)
def normalize_backward(x, seen, delta, weight, bias, epsilon, mean, variance, rectified, dx, dother, dw, db, threads):
    """Return the gradients of ``normalize``.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        seen: like x, the result; or empty where nothing was added, and so it follows from x.
        delta: the gradient of y, likewise.
        weight: (C,) float32.
        bias: (C,) float32.
        epsilon: as in the forward pass.
        mean: (C,) from the forward pass.
        variance: (C,) likewise.
        rectified: as in the forward pass.
        dx: the gradient of x, like it; overwritten.
        dother: the gradient of what was added, likewise; or empty.
        dw: (C,) float32; overwritten.
        db: (C,) float32; overwritten.
        threads: how many work.
    """
    length = x.shape[0] // weight.shape[0]
    taken = begin(threads)
    for thread in prange(threads):
        c = next_task(taken, thread, weight.shape[0])
        while c < weight.shape[0]:
            inverse = 1 / np.sqrt(np.float64(variance[c]) + epsilon)
            scale = weight[c] * inverse
            affine = mean[c], np.float32(scale), bias[c]
            plain, weighted = _products((x, seen, delta), c * length, length, affine, rectified)
            dw[c], db[c] = np.float32(weighted * inverse), np.float32(plain)
            slope = np.float32(-scale * inverse * inverse * weighted / length)
            shift = np.float32(-scale * plain / length)
            _combine(
                zero128(), zero16(), (x, seen, delta, dx, dother), c * length, length, affine, (slope, shift), rectified
            )
            c = next_task(taken, thread, weight.shape[0])


@compiled()
def _moments(x, start, length):
    """Return mean and variance of one channel."""
    plain, _ = _sums(zero128(), zero16(), x, start, min(BLOCK, length), np.float32(0))
    mean, squares = np.float64(plain / min(BLOCK, length)), 0.0
    for done in range(0, length, BLOCK):
        count = min(BLOCK, length - done)
        pivot = np.float32(mean)
        plain, square = _sums(zero128(), zero16(), x, start + done, count, pivot)
        part = np.float64(plain) / count
        gap = pivot + part - mean
        squares += square - part * plain + gap * gap * count * done / (count + done)
        mean += gap * count / (count + done)
    return np.float32(mean), np.float32(max(squares, 0.0) / length)


@compiled()
def _sums(zero, narrow, x, start, count, pivot):
    """Sum up differences to a pivot, and their squares."""
    one, at = np.float32(1), 0
    plain, square, shift = zero, zero, fill(-pivot, zero)
    while count - at >= 128:
        gap = add_scaled(shift, one, read(x, start + at, 128, zero))
        plain, square = add_scaled(plain, one, gap), add_product(square, gap, gap)
        at += 128
    rest, rest_square, shift = narrow, narrow, fill(-pivot, narrow)
    while count > at:
        gap = keep(add_scaled(shift, one, read(x, start + at, min(16, count - at), narrow)), count - at)
        rest, rest_square = add_scaled(rest, one, gap), add_product(rest_square, gap, gap)
        at += 16
    return total(plain) + total(rest), total(square) + total(rest_square)


@compiled()
def _products(arrays, start, length, affine, rectified):
    """Sum up the gradients of one channel, and their products with the inputs' differences to the mean."""
    plain, weighted = 0.0, 0.0
    for done in range(0, length, BLOCK):
        count = min(BLOCK, length - done)
        sums = _product_sums(zero128(), zero16(), arrays, start + done, count, affine, rectified)
        plain += sums[0]
        weighted += sums[1]
    return plain, weighted


@compiled()
def _product_sums(zero, narrow, arrays, start, count, affine, rectified):
    """Do so for one block."""
    x = arrays[0]
    one, at = np.float32(1), 0
    plain, weighted, shift = zero, zero, fill(-affine[0], zero)
    while count - at >= 128:
        gap = add_scaled(shift, one, read(x, start + at, 128, zero))
        push = _push(zero, arrays[1], arrays[2], start + at, 128, gap, affine, rectified)
        plain, weighted = add_scaled(plain, one, push), add_product(weighted, push, gap)
        at += 128
    rest, rest_weighted, shift = narrow, narrow, fill(-affine[0], narrow)
    while count > at:
        some = min(16, count - at)
        gap = add_scaled(shift, one, read(x, start + at, some, narrow))
        push = _push(narrow, arrays[1], arrays[2], start + at, some, gap, affine, rectified)
        rest, rest_weighted = add_scaled(rest, one, push), add_product(rest_weighted, push, keep(gap, some))
        at += 16
    return total(plain) + total(rest), total(weighted) + total(rest_weighted)


@compiled()
def _push(zero, seen, delta, at, count, gap, affine, rectified):
    """Return the gradient of what was normalized: that of the result, where it was not rectified away."""
    push = read(delta, at, count, zero)
    if not rectified:
        return push
    if seen.shape[0]:
        return passed(push, read(seen, at, count, zero))
    return passed(push, rounded(add_scaled(fill(affine[2], zero), affine[1], gap), delta))


@compiled()
def _affine(zero, narrow, arrays, start, length, affine, rectified):
    """Write ``(x - mean) * scale + bias``, added to and rectified."""
    at, end = start, start + length
    while end - at >= 128:
        _finish(zero, arrays, at, 128, affine, rectified)
        at += 128
    while end > at:
        _finish(narrow, arrays, at, min(16, end - at), affine, rectified)
        at += 16


@compiled()
def _finish(zero, arrays, at, count, affine, rectified):
    """Do so for one tile."""
    (x, other, y), (mean, scale, bias) = arrays, affine
    one = np.float32(1)
    tile = add_scaled(fill(bias, zero), scale, add_scaled(fill(-mean, zero), one, read(x, at, count, zero)))
    if other.shape[0]:
        tile = add_scaled(rounded(tile, y), one, read(other, at, count, zero))
    if rectified:
        tile = passed(tile, tile)
    write(y, at, count, tile)


@compiled()
def _combine(zero, narrow, arrays, start, length, affine, back, rectified):
    """Write ``push * scale + (x - mean) * slope + shift``, and push where it is wanted."""
    at, end = start, start + length
    while end - at >= 128:
        _return(zero, arrays, at, 128, affine, back, rectified)
        at += 128
    while end > at:
        _return(narrow, arrays, at, min(16, end - at), affine, back, rectified)
        at += 16


@compiled()
def _return(zero, arrays, at, count, affine, back, rectified):
    """Do so for one tile."""
    (x, seen, delta, dx, dother), (slope, shift) = arrays, back
    gap = add_scaled(fill(-affine[0], zero), np.float32(1), read(x, at, count, zero))
    push = _push(zero, seen, delta, at, count, gap, affine, rectified)
    write(dx, at, count, add_scaled(add_scaled(fill(shift, zero), slope, gap), affine[1], push))
    if dother.shape[0]:
        write(dother, at, count, push)
