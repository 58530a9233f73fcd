"""Which of many scores are the highest: a threshold found digit by digit, without sorting; in compiled loops.

A score of 32 bits is read as a whole number that rises with it. Counting by its upper digits, then by the next among
those that agree so far, finds the number of the last one to be kept.
Shape letters: M scores, K kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrun.system.compiled import compiled
from dstrun.system.parts import SMALL, each, spans

DIGITS = ((21, 11), (10, 11), (0, 10))
"""How far each digit of a number is shifted, and its bits."""

RADIX = 1 << 11
"""Values of a digit."""

ALL, HALF, SIGN = np.uint32(0xFFFFFFFF), np.uint32(0x7FFFFFFF), np.uint32(1 << 31)
INFINITE, LEAST = np.uint32(0x7F800000), np.uint32(0x007FFFFF)
"""The bits of an infinite score, and the number of the lowest one."""


def chosen(
    scores: NDArray[np.float32], count: int, excluded: NDArray[np.int64], low: bool, threads: int, block: int
) -> NDArray[np.int64]:
    """Return the indices of the ``count`` highest scores, ascending; of equal scores those of the lowest indices.

    Args:
        scores: (M,); what is not a number counts as the last of all, and -0 equals 0.
        count: K, at most M less those excluded.
        excluded: sorted indices that are not to be chosen.
        low: whether to choose the lowest instead.
        threads: how many work.
        block: so many scores at least are one part.
    """
    found = np.empty(count, np.int64)
    if not count:
        return found
    bits, flip = scores.view(np.uint32), SIGN if low else np.uint32(0)
    parts = spans(scores.size, max(1, scores.size // block))
    if threads == 1 or scores.size <= SMALL:
        _choose(np.array(parts), bits, flip, excluded, found)
        return found
    left, prefix = count, 0
    above, equal, histograms = (np.zeros(shape, np.int64) for shape in (len(parts), len(parts), (len(parts), RADIX)))
    for shift, width in DIGITS:
        digit = np.uint32(shift), np.uint32(width), np.uint32(prefix)
        calls = [(*part, bits, flip, excluded, *digit, own) for part, own in zip(parts, histograms, strict=True)]
        each(_count, calls, threads)
        value, left = _step(histograms, left, above, equal)
        prefix = prefix << width | value
    starts = _share(above, equal, left)
    calls = [
        (*part, bits, flip, excluded, np.uint32(prefix), equal[i], found[starts[i] : starts[i + 1]])
        for i, part in enumerate(parts)
    ]
    each(_emit, calls, threads)
    return found


@compiled()
def _rising(bits: Any, flip: Any) -> Any:
    """Return a number that rises with the score of these bits."""
    bits = np.uint32(bits ^ flip)
    number = np.uint32(bits ^ (ALL if bits & SIGN else SIGN))
    number = number if bits != SIGN else SIGN
    return number if np.uint32(bits & HALF) <= INFINITE else LEAST


@compiled()
def _count(begin, end, bits, flip, excluded, shift, width, prefix, histogram):
    """Count the numbers of a part that begin with ``prefix`` by the digit that follows it."""
    above, mask, first = shift + width, (np.uint32(1) << width) - np.uint32(1), width + shift == np.uint32(32)
    stop = np.searchsorted(excluded, end)
    for at in range(np.searchsorted(excluded, begin), stop + 1):
        until = excluded[at] if at < stop else end
        for i in range(begin, until):
            number = _rising(bits[i], flip)
            if first or number >> above == prefix:
                histogram[(number >> shift) & mask] += 1
        begin = until + 1


@compiled()
def _emit(begin, end, bits, flip, excluded, threshold, equal, found):
    """Name those of a part above the threshold, and the first ``equal`` that are at it: as many as ``found`` has."""
    kept, stop = 0, np.searchsorted(excluded, end)
    for at in range(np.searchsorted(excluded, begin), stop + 1):
        until = excluded[at] if at < stop else end
        for i in range(begin, until):
            if kept == found.size:
                return
            number = _rising(bits[i], flip)
            level = number == threshold and equal > 0
            found[kept] = i
            kept += number > threshold or level
            equal -= level
        begin = until + 1


@compiled()
def _step(histograms, left, above, equal):
    """Find the digit of the last one to be kept, and clear the histograms of the parts.

    Args:
        histograms: (parts, RADIX) how often each digit comes among those that agree so far.
        left: how many of these are to be kept.
        above: (parts,) how many of each part are surely kept; those of a higher digit are added.
        equal: (parts,) how many have that digit; overwritten.

    Returns:
        The digit, and how many of those that have it are to be kept.
    """
    parts, value = histograms.shape[0], histograms.shape[1]
    more = 0
    while value > 0 and more < left:
        left -= more
        value -= 1
        more = 0
        for part in range(parts):
            more += histograms[part, value]
    for part in range(parts):
        for digit in range(value + 1, histograms.shape[1]):
            above[part] += histograms[part, digit]
        equal[part] = histograms[part, value]
        histograms[part] = 0
    return value, left


@compiled()
def _share(above, equal, left):
    """Cut ``equal`` so that the first ``left`` stay; return where what each part keeps starts, and where all end."""
    starts = np.zeros(above.size + 1, np.int64)
    for part in range(above.size):
        equal[part] = min(equal[part], left)
        left -= equal[part]
        starts[part + 1] = starts[part] + above[part] + equal[part]
    return starts


@compiled()
def _choose(parts, bits, flip, excluded, found):
    """Do all of ``chosen`` on one thread."""
    left, prefix, many = found.size, np.uint32(0), parts.shape[0]
    above, equal, histograms = np.zeros(many, np.int64), np.zeros(many, np.int64), np.zeros((many, RADIX), np.int64)
    for shift, width in DIGITS:
        down, wide = np.uint32(shift), np.uint32(width)
        for part in range(many):
            _count(parts[part, 0], parts[part, 1], bits, flip, excluded, down, wide, prefix, histograms[part])
        value, left = _step(histograms, left, above, equal)
        prefix = np.uint32(prefix << wide | np.uint32(value))
    starts = _share(above, equal, left)
    for part in range(many):
        own = found[starts[part] : starts[part + 1]]
        _emit(parts[part, 0], parts[part, 1], bits, flip, excluded, prefix, equal[part], own)
