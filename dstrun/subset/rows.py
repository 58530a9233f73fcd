"""Arrivals of a layer's pairs, row by row in compiled loops: inputs by an alias table, repeats by a bitmap.

Every number drawn is a function of the seed, the row and a counter, so that threads change nothing.
Shape letters: O outputs (rows), I inputs of a row, G groups, T taken positions, E early and L late arrivals in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dstrun.system.compiled import compiled
from dstrun.system.parts import SMALL, in_parts

CHUNKS = 8
"""Parts of the rows for each thread; each has one bitmap."""

SCAN = 8
"""Words of a bitmap that are scanned in the time that sorting one more column takes."""

Ints, Floats = NDArray[np.int64], NDArray[np.float64]

ONE = np.uint64(1)
GOLDEN, TIMES = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
FACTOR_1, FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_11, SHIFT_27, SHIFT_30, SHIFT_31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@intrinsic
def _trailing_zeros(_typing: Any, word: Any) -> Any:
    """Count the zeros below the lowest set bit of a word that is not zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@compiled()
def _mixed(z: Any) -> Any:
    """Scramble 64 bits (splitmix64: Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> SHIFT_30)) * FACTOR_1
    z = (z ^ (z >> SHIFT_27)) * FACTOR_2
    return z ^ (z >> SHIFT_31)


@compiled()
def _uniform(state: Any, counter: Any) -> Any:
    """Return a row's ``counter``-th number of 53 bits in [0, 1)."""
    return np.float64(_mixed(state + np.uint64(counter) * GOLDEN) >> SHIFT_11) * 2.0**-53


@compiled()
def alias_tables(f: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Build the alias table of each group (Vose 1991).

    Args:
        f: (G, I) positive weights.

    Returns:
        accept, (G, I): where the fraction of I u lies below it, u names its own cell; alias, (G, I): else this one.
    """
    groups, inputs = f.shape
    accept, alias = np.ones((groups, inputs)), np.zeros((groups, inputs), np.int32)
    waiting = np.empty(inputs, np.int64)  # light cells from the left, heavy ones from the right
    for k in range(groups):
        light, heavy, scale = 0, inputs, inputs / f[k].sum()
        for i in range(inputs):
            accept[k, i] = f[k, i] * scale
            if accept[k, i] < 1:
                waiting[light] = i
                light += 1
            else:
                heavy -= 1
                waiting[heavy] = i
        while light > 0 and heavy < inputs:
            light -= 1
            low, high = waiting[light], waiting[heavy]
            alias[k, low] = high
            accept[k, high] -= 1 - accept[k, low]
            if accept[k, high] < 1:
                heavy += 1
                waiting[light] = high
                light += 1
        for at in range(light):  # 1 but for rounding
            accept[k, waiting[at]] = 1.0
    return accept, alias


@compiled()
def _row(bits, free, early, late, inputs, accept, alias, state, columns, late_columns, times):
    """Draw the arrivals of one row: the inputs first seen among the early, then among the late ones with their times.

    ``bits`` marks the taken inputs, and afterwards those seen. Gives how many were seen of both kinds.
    """
    clock, arriving, tabled = _mixed(state ^ TIMES), early + late, accept.size > 0
    found, found_late, left = 0, 0, 1.0
    for j in range(arriving):
        if found + found_late == free:
            break
        u = _uniform(state, j) * inputs
        i = min(np.int64(u), inputs - 1)
        if tabled and u - i >= accept[i]:
            i = np.int64(alias[i])
        if j >= early:  # times ascend: the next is the smallest of as many uniforms as are still to come
            left *= (1.0 - _uniform(clock, j)) ** (1.0 / (arriving - j))
        word, bit = i >> 6, ONE << np.uint64(i & 63)
        if bits[word] & bit:
            continue
        bits[word] |= bit
        if j < early:
            columns[found] = i
            found += 1
        else:
            late_columns[found_late], times[found_late] = i, 1.0 - left
            found_late += 1
    return found, found_late


@compiled()
def _emit(bits, taken, first, columns, late_columns):
    """Sort the columns of one row and clear its bitmap, by whichever is cheaper: the words, or the columns alone."""
    if bits.size > SCAN * columns.size:
        columns.sort()
        for position in taken:
            bits[(position - first) >> 6] = 0
        for i in columns:
            bits[i >> 6] = 0
        for i in late_columns:
            bits[i >> 6] = 0
        return
    for position in taken:
        i = position - first
        bits[i >> 6] &= ~(ONE << np.uint64(i & 63))
    for i in late_columns:
        bits[i >> 6] &= ~(ONE << np.uint64(i & 63))
    found = 0
    for word in range(bits.size):
        rest = bits[word]
        while rest:
            columns[found] = 64 * word + np.int64(_trailing_zeros(rest))  # pyright: ignore[reportCallIssue]
            found += 1
            rest &= rest - ONE
        bits[word] = 0


@compiled()
def _arrive(begin, end, early, late, slots, late_slots, starts, taken, accept, alias, inputs, seed, columns,
            late_columns, times, counts):  # fmt: skip
    """Fill ``columns``, ``late_columns``, ``times`` and ``counts``; ``arrivals`` says with what."""
    per_group, bits = early.size // accept.shape[0], np.zeros((inputs + 63) >> 6, np.uint64)
    for o in range(begin, end):
        if early[o] + late[o] == 0:
            continue
        own, first, k = taken[starts[o] : starts[o + 1]], o * inputs, o // per_group
        for position in own:
            i = position - first
            bits[i >> 6] |= ONE << np.uint64(i & 63)
        state = _mixed(seed ^ _mixed(np.uint64(o + 1) * GOLDEN))
        some, later, when = columns[slots[o] :], late_columns[late_slots[o] :], times[late_slots[o] :]
        found, found_late = _row(
            bits, inputs - own.size, early[o], late[o], inputs, accept[k], alias[k], state, some, later, when
        )
        _emit(bits, own, first, some[:found], later[:found_late])
        counts[o] = found


@compiled()
def _gather(begin, end, slots, counts, columns, late_slots, late_columns, keep, ends, inputs, positions):
    """Merge each row's early columns and the late ones kept into ``positions``, sorted; row o's end at ``ends[o]``."""
    for o in range(begin, end):
        some = columns[slots[o] : slots[o] + counts[o]]
        start, stop = late_slots[o], late_slots[o + 1]
        at, first = ends[o] - 1, o * inputs
        a = some.size - 1
        if stop > start:
            more = late_columns[start:stop][keep[start:stop]]
            more.sort()
            for b in range(more.size - 1, -1, -1):
                while a >= 0 and some[a] > more[b]:
                    positions[at] = first + some[a]
                    at, a = at - 1, a - 1
                positions[at] = first + more[b]
                at -= 1
        for left in range(a + 1):
            positions[at - a + left] = first + some[left]


class Arrivals:
    """What one round of arrivals found: (E,) at most without their times, (L,) at most with theirs.

    Args:
        early: (O,) int64 arrivals of each row whose order does not matter.
        late: (O,) int64 arrivals of each row that come after these.
        taken: (T,) sorted positions that are not to be found.
        tables: the alias tables of the groups, (G, I), or (G, 0) where all inputs of a row are alike.
        inputs: I.
        seed: of 64 bits; the same arrivals come again with the same one.
        threads: how many share the rows; what is found does not depend on it.

    Attributes:
        times: (L,) of the late ones found in the share of their interval, [0, 1); infinite where none is.
    """

    def __init__(
        self,
        early: Ints,
        late: Ints,
        taken: Ints,
        tables: tuple[Floats, NDArray[np.int32]],
        inputs: int,
        seed: int,
        threads: int,
    ) -> None:
        self.inputs, rows = inputs, early.size
        self.threads = threads if taken.size + early.sum() + late.sum() > SMALL else 1
        starts = np.searchsorted(taken, np.arange(rows + 1) * inputs)
        free = inputs - np.diff(starts)
        self.slots, self.late_slots = (_offsets(np.minimum(arriving, free)) for arriving in (early, late))
        self.columns = np.empty(self.slots[-1], np.int32)
        self.late_columns, self.times = np.empty(self.late_slots[-1], np.int32), np.full(self.late_slots[-1], np.inf)
        self.counts = np.zeros(rows, np.int64)
        self._share(
            _arrive, early, late, self.slots, self.late_slots, starts, taken, *tables, inputs, np.uint64(seed),
            self.columns, self.late_columns, self.times, self.counts,
        )  # fmt: skip

    def positions(self, keep: NDArray[np.bool_]) -> Ints:
        """Return the sorted positions of all early ones found and of those late ones, (L,), to be kept."""
        kept = np.concatenate([[0], keep.cumsum()])
        ends = self.counts.cumsum() + kept[self.late_slots[1:]]
        positions = np.empty(ends[-1], np.int64)
        self._share(
            _gather, self.slots, self.counts, self.columns, self.late_slots, self.late_columns, keep, ends, self.inputs,
            positions,
        )  # fmt: skip
        return positions

    def _share(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do the work of all rows, in parts that threads take in turn."""
        in_parts(work, self.counts.size, self.threads, *arguments, chunks=CHUNKS)


def _offsets(lengths: Ints) -> Ints:
    """Return where each of some stretches starts, and where the last ends."""
    return np.concatenate([[0], lengths.cumsum()])
