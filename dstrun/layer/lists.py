"""Sorted lists of positions in compiled loops: one pass each, and no more memory than the result.

Shape letters: A and B entries of two lists, P pruned and G grown positions.
"""

from __future__ import annotations

from dstrun.system.compiled import compiled

STRANGE, REPEATED = 1, 2
"""What ``exchange`` finds wrong: a pruned position is not active, or named twice; a grown one is active, or so."""


@compiled()
def rises(positions):
    """Return whether every position is above the one before."""
    falls = 0
    for i in range(1, positions.size):
        falls += positions[i] <= positions[i - 1]
    return falls == 0


@compiled()
def without(positions, dropped, left):
    """Leave out of sorted positions, (A,), those that are among ``dropped``, (B,), which are sorted too.

    They go to the beginning of ``left``, (A,); returns how many there are.
    """
    count, at = 0, 0
    for position in positions:
        while at < dropped.size and dropped[at] < position:
            at += 1
        if at == dropped.size or dropped[at] != position:
            left[count] = position
            count += 1
    return count


@compiled()
def others(positions, named, places):
    """Find where sorted positions, (A,), are that are not named, (B,), sorted and all among them: (A - B,)."""
    count, at = 0, 0
    for i in range(positions.size):
        if at < named.size and named[at] == positions[i]:
            at += 1
        elif count < places.size:
            places[count] = i
            count += 1


@compiled()
def merge(one, other, both):
    """Merge two sorted lists: (A + B,)."""
    a, b = 0, 0
    for at in range(both.size):
        if b == other.size or (a < one.size and one[a] <= other[b]):
            both[at] = one[a]
            a += 1
        else:
            both[at] = other[b]
            b += 1


@compiled()
def union(one, other, both):
    """Merge two sorted lists into ``both``, (A + B,), naming what is in both once; returns how many there are."""
    count, a, b = 0, 0, 0
    while a < one.size or b < other.size:
        takes = b == other.size or (a < one.size and one[a] <= other[b])
        entry = one[a] if takes else other[b]
        if takes:
            a += 1
        else:
            b += 1
        if count == 0 or both[count - 1] != entry:
            both[count] = entry
            count += 1
    return count


@compiled()
def multiples(positions, factor, found):
    """Put the multiples of a factor among positions, (A,), into ``found``, (A,); returns how many there are."""
    count = 0
    for position in positions:
        found[count] = position
        count += position % factor == 0
    return count


@compiled()
def gaps(positions, first, found):
    """Put the numbers from 0 on that are not among rising positions, counted from ``first``, into ``found``."""
    count, number = 0, 0
    for at in range(positions.size + 1):
        until = positions[at] - first if at < positions.size else number + found.size - count
        while number < until and count < found.size:
            found[count] = number
            count, number = count + 1, number + 1
        number += 1


@compiled()
def exchange(positions, prune, grow, new):
    """Leave out some of sorted positions, (A,), and add others.

    Args:
        positions: rising.
        prune: (P,) sorted.
        grow: (G,) sorted.
        new: (A - P + G,) the positions then, rising; overwritten.

    Returns:
        0, or ``STRANGE`` or ``REPEATED``, with which they make no sense.
    """
    at, p, g = 0, 0, 0
    for a in range(positions.size + 1):
        while g < grow.size and (a == positions.size or grow[g] < positions[a]):
            if at == new.size:
                return STRANGE
            new[at] = grow[g]
            at, g = at + 1, g + 1
        if a < positions.size:
            if p < prune.size and prune[p] == positions[a]:
                p += 1
            elif at == new.size:
                return STRANGE
            else:
                new[at] = positions[a]
                at += 1
    if p < prune.size:
        return STRANGE
    return 0 if rises(new) else REPEATED
