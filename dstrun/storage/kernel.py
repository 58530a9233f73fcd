"""Compiled code, on the CPU, for numbers kept in less than a byte or two each; no temporary of a tensor's size.

Noise is a hash of a key and the number's place, so that it hangs neither on threads nor on what was drawn before.

Shape letters: L numbers, K blocks.
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.system.compiled import compiled

BLOCK = 256
"""Numbers that share a minimum and a step."""
TASK = 4096
"""Bytes of bits that one task writes or reads."""
UNIT = np.float32(2**-24)


@compiled()
def _noise(place, key, other):
    """Return a number in [0, 1) that looks random: the hash ``lowbias32`` (Wellons 2018) of a place, keyed twice."""
    h = np.uint32(np.uint32(place) * np.uint32(0x9E3779B9) + key)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(15))) * np.uint32(0x846CA68B))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) + other)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ np.uint32(h >> np.uint32(15)))
    return np.float32(np.int32(h >> np.uint32(8))) * UNIT


@compiled()
def _code(x, low, step, levels, noise):
    """Return x in steps above low, rounded up or down at random."""
    return min(np.int32((x - low) / step + noise), levels)


@compiled(parallel=True)
def encode(x, low, step, levels, key, other, codes):
    """Round every number to one of its block's steps, up or down at random, so that its mean is the number.

    Args:
        x: (L,) float32.
        low: (K,) float32, of each block.
        step: (K,) float32, likewise; where it is not finite, or 0, all codes are 0.
        levels: int32: 255, a byte each, or 15, two numbers a byte.
        key: uint32.
        other: uint32, likewise.
        codes: (L,) uint8, or (ceil(L / 2),); overwritten.
    """
    length = x.shape[0]
    for block in prange(low.shape[0]):
        start, end = block * BLOCK, min(length, block * BLOCK + BLOCK)
        base, width = low[block], step[block]
        whole = width > 0 and width < np.inf
        if levels > 15:
            if whole:
                for i in range(start, end):
                    codes[i] = np.uint8(_code(x[i], base, width, levels, _noise(i, key, other)))
            else:
                for i in range(start, end):
                    codes[i] = 0
        elif whole:
            for i in range(start // 2, end // 2):
                first = _code(x[2 * i], base, width, levels, _noise(2 * i, key, other))
                second = _code(x[2 * i + 1], base, width, levels, _noise(2 * i + 1, key, other))
                codes[i] = np.uint8(first | second << 4)
            if end % 2:
                codes[end // 2] = np.uint8(_code(x[end - 1], base, width, levels, _noise(end - 1, key, other)))
        else:
            for i in range(start // 2, (end + 1) // 2):
                codes[i] = 0


@compiled(parallel=True)
def decode(codes, low, step, levels, x):
    """Write the numbers that codes stand for; see ``encode``."""
    length = x.shape[0]
    for block in prange(low.shape[0]):
        start, end = block * BLOCK, min(length, block * BLOCK + BLOCK)
        base, width = low[block], step[block]
        if levels > 15:
            for i in range(start, end):
                x[i] = base + np.float32(codes[i]) * width
        else:
            for i in range(start // 2, end // 2):
                x[2 * i] = base + np.float32(codes[i] & 15) * width
                x[2 * i + 1] = base + np.float32(codes[i] >> 4) * width
            if end % 2:
                x[end - 1] = base + np.float32(codes[end // 2] & 15) * width


@compiled(parallel=True)
def pack_bits(flags, bits):
    """Write eight flags a byte, the first in the lowest bit.

    Args:
        flags: (L,) uint8, 0 or 1.
        bits: (ceil(L / 8),) uint8; overwritten.
    """
    length = flags.shape[0]
    for task in prange((bits.shape[0] + TASK - 1) // TASK):
        for at in range(task * TASK, min(bits.shape[0], task * TASK + TASK)):
            byte = 0
            for bit in range(min(8, length - 8 * at)):
                byte |= flags[8 * at + bit] << bit
            bits[at] = byte


@compiled(parallel=True)
def unpack_bits(bits, flags):
    """Write the flags that ``pack_bits`` was given."""
    length = flags.shape[0]
    for task in prange((bits.shape[0] + TASK - 1) // TASK):
        for at in range(task * TASK, min(bits.shape[0], task * TASK + TASK)):
            byte = bits[at]
            for bit in range(min(8, length - 8 * at)):
                flags[8 * at + bit] = byte >> bit & 1


@compiled(parallel=True)
def sift(x, bits, y):
    """Write numbers where ``bits`` has a flag, else 0.

    Args:
        x: (L,) of any integer type: numbers as their bits.
        bits: (ceil(L / 8),) uint8, as ``pack_bits`` writes them.
        y: like x; overwritten.
    """
    length = x.shape[0]
    for task in prange((bits.shape[0] + TASK - 1) // TASK):
        for at in range(task * TASK, min(bits.shape[0], task * TASK + TASK)):
            byte = bits[at]
            for i in range(8 * at, min(length, 8 * at + 8)):
                y[i] = x[i] if byte >> (i - 8 * at) & 1 else 0
