"""Batch normalization of batch-innermost activations: one pass for the statistics, one for the result, both ways.

Mean and variance are summed in float32 about the mean so far, in blocks that are put together in float64: they hold
where the mean is large beside the deviation. Channels are shared out among threads, so every sum has one order.

Shape letters: C channels, L numbers of a channel (H W N).
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import add_product, add_scaled, fill, keep, read, total, write, zero16, zero128
from dstrun.system.compiled import compiled

BLOCK = 4096
"""Numbers summed in float32 before they are added up in float64."""


@compiled(parallel=True)
def normalize(x, weight, bias, epsilon, y, mean, variance):
    """Bring every channel to mean ``bias`` and deviation ``weight``.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        weight: (C,) float32.
        bias: (C,) float32.
        epsilon: added to the variance.
        y: like x; overwritten.
        mean: (C,) float32; overwritten.
        variance: (C,) float32, that of the numbers themselves (divided by L); overwritten.
    """
    length = x.shape[0] // weight.shape[0]
    for c in prange(weight.shape[0]):
        mean[c], variance[c] = _moments(x, c * length, length)
        scale = np.float32(weight[c] / np.sqrt(np.float64(variance[c]) + epsilon))
        _affine(zero128(), zero16(), x, c * length, length, mean[c], scale, bias[c], y)


@compiled(parallel=True)
def affine(x, weight, bias, epsilon, y, mean, variance):
    """Write what ``normalize`` wrote, by the mean and variance that it found."""
    length = x.shape[0] // weight.shape[0]
    for c in prange(weight.shape[0]):
        scale = np.float32(weight[c] / np.sqrt(np.float64(variance[c]) + epsilon))
        _affine(zero128(), zero16(), x, c * length, length, mean[c], scale, bias[c], y)


@compiled(parallel=True)
def normalize_backward(x, delta, weight, epsilon, mean, variance, dx, dw, db):
    """Return the gradients of ``normalize``.

    Args:
        x: flat (C, H, W, N), float32 or bfloat16 bits.
        delta: the gradient of y, likewise.
        weight: (C,) float32.
        epsilon: as in the forward pass.
        mean: (C,) from the forward pass.
        variance: (C,) likewise.
        dx: the gradient of x, like it; overwritten.
        dw: (C,) float32; overwritten.
        db: (C,) float32; overwritten.
    """
    length = x.shape[0] // weight.shape[0]
    for c in prange(weight.shape[0]):
        inverse = 1 / np.sqrt(np.float64(variance[c]) + epsilon)
        plain, weighted = _products(x, delta, c * length, length, mean[c])
        dw[c], db[c] = np.float32(weighted * inverse), np.float32(plain)
        scale = weight[c] * inverse
        slope = np.float32(-scale * inverse * inverse * weighted / length)
        shift = np.float32(-scale * plain / length)
        _combine(zero128(), zero16(), x, delta, c * length, length, mean[c], np.float32(scale), slope, shift, dx)


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
def _products(x, delta, start, length, mean):
    """Sum up the gradients of one channel, and their products with the inputs' differences to the mean."""
    plain, weighted = 0.0, 0.0
    for done in range(0, length, BLOCK):
        sums = _product_sums(zero128(), zero16(), x, delta, start + done, min(BLOCK, length - done), mean)
        plain += sums[0]
        weighted += sums[1]
    return plain, weighted


@compiled()
def _product_sums(zero, narrow, x, delta, start, count, mean):
    """Do so for one block."""
    one, at = np.float32(1), 0
    plain, weighted, shift = zero, zero, fill(-mean, zero)
    while count - at >= 128:
        push = read(delta, start + at, 128, zero)
        gap = add_scaled(shift, one, read(x, start + at, 128, zero))
        plain, weighted = add_scaled(plain, one, push), add_product(weighted, push, gap)
        at += 128
    rest, rest_weighted, shift = narrow, narrow, fill(-mean, narrow)
    while count > at:
        push = read(delta, start + at, min(16, count - at), narrow)
        gap = add_scaled(shift, one, read(x, start + at, min(16, count - at), narrow))
        rest, rest_weighted = add_scaled(rest, one, push), add_product(rest_weighted, push, keep(gap, count - at))
        at += 16
    return total(plain) + total(rest), total(weighted) + total(rest_weighted)


@compiled()
def _affine(zero, narrow, x, start, length, mean, scale, bias, y):
    """Write ``(x - mean) * scale + bias``."""
    one, at = np.float32(1), start
    end = start + length
    shift, base = fill(-mean, zero), fill(bias, zero)
    while end - at >= 128:
        gap = add_scaled(shift, one, read(x, at, 128, zero))
        write(y, at, 128, add_scaled(base, scale, gap))
        at += 128
    shift, base = fill(-mean, narrow), fill(bias, narrow)
    while end > at:
        gap = add_scaled(shift, one, read(x, at, min(16, end - at), narrow))
        write(y, at, min(16, end - at), add_scaled(base, scale, gap))
        at += 16


@compiled()
def _combine(zero, narrow, x, delta, start, length, mean, scale, slope, shift, dx):
    """Write ``delta * scale + (x - mean) * slope + shift``."""
    one, at = np.float32(1), start
    end = start + length
    back, base = fill(-mean, zero), fill(shift, zero)
    while end - at >= 128:
        gap = add_scaled(back, one, read(x, at, 128, zero))
        write(dx, at, 128, add_scaled(add_scaled(base, slope, gap), scale, read(delta, at, 128, zero)))
        at += 128
    back, base = fill(-mean, narrow), fill(shift, narrow)
    while end > at:
        count = min(16, end - at)
        gap = add_scaled(back, one, read(x, at, count, narrow))
        write(dx, at, count, add_scaled(add_scaled(base, slope, gap), scale, read(delta, at, count, narrow)))
        at += 16
