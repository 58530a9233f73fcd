"""Draw candidates from a factored distribution without forming it: p(o, i) ~ g[o] f[group(o), i].

Successive sampling without replacement is a race (Efraimidis and Spirakis 2006): every pair arrives again and again, as
a Poisson process of rate p(o, i), and those drawn are the first to have arrived. So rows are drawn apart from each
other, each as many arrivals as its share of the time gives it, and only the few pairs that may or may not be among
the first need a time of arrival.

Shape letters: O outputs, I inputs of one output, G groups, M candidates, B blocked positions.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from dstrun.layer.selection import lowest
from dstrun.layer.topology import contains, inactive, merged
from dstrun.subset.rows import Arrivals, alias_tables
from dstrun.system.transfer import fetched

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext

FLOOR = 1e-3
"""Every input and output keeps this share of the mean weight, so that none is out of reach where all are zero."""

ROUNDS = 100
"""Rounds of arrivals before the rest is drawn from the blocks of the exact conditional law."""

REACH = 4
"""So many arrivals for each free position are waited for before the rest is drawn from these blocks."""

DEVIATIONS = 4
"""How many standard deviations on either side of the expected last arrival have their times drawn."""


def draw(f: Tensor, g: Tensor, context: GrowthContext, wanted: int, exact: bool) -> Tensor:
    """Draw candidates outside ``context.blocked``.

    Args:
        f: (G, I) weights of the inputs of each group.
        g: (O,) weights of the outputs.
        context: names the blocked positions and the generator.
        wanted: how many to draw.
        exact: draw until min(wanted, free) distinct unblocked ones are found, which is successive sampling without
            replacement; else draw ``wanted`` with replacement once and drop repeated and blocked ones.

    Returns:
        (M,) int64 positions, sorted; on the CPU.
    """
    blocked, generator = context.blocked, context.generator
    if exact and wanted >= context.free:
        return inactive(blocked, torch.arange(context.free))
    pairs = _Pairs(*(t.view(s.shape) for t, s in zip(fetched([f, g]), (f, g), strict=True)))
    if exact:
        return pairs.first(blocked, wanted, generator)
    drawn = pairs.draw(wanted, generator).sort().values.unique_consecutive()
    return drawn[~contains(blocked, drawn)]


def _floored(weights: Tensor) -> Tensor:
    """Scale weights to a mean of 1, so that no product underflows, and add the floor; all zero count as equal."""
    mean = weights.mean()
    return weights / mean + FLOOR if mean > 0 else torch.ones_like(weights)


class _Pairs:
    """The factored distribution in float64; a clock runs so that one arrival is expected in a unit of time."""

    def __init__(self, f: Tensor, g: Tensor) -> None:
        f, g = f.double(), g.double()
        if not (bool(f.isfinite().all()) and bool(g.isfinite().all())):  # a diverging run: its loss will say so
            f, g = torch.ones_like(f), torch.ones_like(g)
        self.f, self.g = _floored(f), _floored(g)
        self.inputs = f.shape[1]
        self.group = torch.arange(g.numel()) // (g.numel() // f.shape[0])
        sums = self.f.sum(1)
        rates = self.g * sums[self.group]
        self.rates = rates / rates.sum()
        self.within = self.f / sums[:, None]

    @cached_property
    def o_ends(self) -> Tensor:
        """Return where each output's share of [0, 1] ends: (O,)."""
        return self.rates.cumsum(0)

    @cached_property
    def i_ends(self) -> Tensor:
        """Return where each input's share of its group's stretch [k, k + 1] ends: (G I,)."""
        return (self.within.cumsum(1).clamp_(max=1) + torch.arange(self.f.shape[0])[:, None]).flatten()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw positions with replacement: first the output by its share, then an input of its group: (count,)."""
        u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
        out = torch.searchsorted(self.o_ends, u * self.o_ends[-1], right=True).clamp_(max=self.g.numel() - 1)
        group = self.group[out]
        at = torch.searchsorted(self.i_ends, group + v, right=True) - group * self.inputs
        return out * self.inputs + at.clamp_(0, self.inputs - 1)

    def first(self, blocked: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
        """Return the ``wanted`` positions outside ``blocked`` that arrive first, sorted."""
        tables = alias_tables(self.f.numpy()) if bool((self.f != self.f[:, :1]).any()) else _none(self.f.shape[0])
        distinct = _Distinct(self, blocked)
        found, clock = blocked[:0], 0.0
        for _ in range(ROUNDS):
            missing = wanted - found.numel()
            window = distinct.window(clock, missing) if missing else (math.inf, math.inf)
            if window[1] - clock > REACH * distinct.free:
                break
            until, end = (min(time, clock + 2 * wanted + blocked.numel() + 1024) for time in window)
            early, late = (torch.poisson(self.rates * span, generator).long() for span in (until - clock, end - until))
            seed = int(torch.randint(2**62, (), generator=generator))
            taken = merged(blocked, found)
            fresh = _earliest(early, late, taken, tables, self.inputs, seed, missing)
            found, clock = merged(found, fresh), end
        if found.numel() < wanted:
            rest = self.rest(merged(blocked, found), wanted - found.numel(), generator)
            found = merged(found, rest.sort().values)
        return found

    def rest(self, taken: Tensor, count: int, generator: torch.Generator, block: int = 1 << 20) -> Tensor:
        """Draw the remaining ``count`` where rejection is too slow: the ``count`` smallest of Exp(1) / weight.

        That is successive sampling without replacement (Efraimidis and Spirakis 2006) among the positions not yet
        ``taken`` (sorted), gone over in blocks of at most ``block``, keeping a running best.
        """
        free = self.g.numel() * self.inputs - taken.numel()
        best, times = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        for start in range(0, free, block):
            positions = inactive(taken, torch.arange(start, min(start + block, free)))
            out = positions // self.inputs
            weight = self.g[out] * self.f[self.group[out], positions % self.inputs]
            waits = torch.empty_like(weight).exponential_(generator=generator) / weight
            times, order = torch.cat([times, waits]).sort()
            best, times = torch.cat([best, positions])[order[:count]], times[:count]
        return best


def _none(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Stand for the alias tables of groups whose inputs are all alike."""
    return np.empty((groups, 0)), np.empty((groups, 0), np.int32)


def _earliest(
    early: Tensor, late: Tensor, taken: Tensor, tables: tuple[np.ndarray, np.ndarray], inputs: int, seed: int, most: int
) -> Tensor:
    """Return the positions that arrive in one round, sorted: the ``most`` earliest where more do."""

    def arrivals(early: Tensor, late: Tensor) -> Arrivals:
        return Arrivals(early.numpy(), late.numpy(), taken.numpy(), tables, inputs, seed, torch.get_num_threads())

    round_ = arrivals(early, late)
    sure = int(round_.counts.sum())
    if sure > most:  # seldom: the same arrivals once more, now all with their times
        round_, sure = arrivals(torch.zeros_like(early), early), 0
    keep = np.isfinite(round_.times)
    if sure + int(keep.sum()) > most:
        keep[:] = False
        keep[lowest(torch.from_numpy(round_.times), most - sure).numpy()] = True
    return torch.from_numpy(round_.positions(keep))


class _Distinct:
    """How many distinct unblocked positions are expected to have arrived by a time.

    An estimate, which decides no more than how the work is split: pairs are counted by classes of like weight (exact
    for flat weights), blocked ones by a sample.
    """

    def __init__(self, pairs: _Pairs, blocked: Tensor, classes: int = 48, sample: int = 4096) -> None:
        self.free = pairs.g.numel() * pairs.inputs - blocked.numel()
        (rates, rows), (within, inputs) = (_classes(w, classes) for w in (pairs.rates, pairs.within.flatten()))
        sampled = min(sample, blocked.numel())
        at = blocked[torch.arange(sampled) * blocked.numel() // max(sampled, 1)]
        out = at // pairs.inputs
        self.sampled, self.blocked = (
            pairs.rates[out] * pairs.within[pairs.group[out], at % pairs.inputs],
            blocked.numel(),
        )
        self.weights = torch.cat([torch.outer(rates, within).flatten(), self.sampled])
        counted = torch.outer(rows, inputs).flatten() / pairs.f.shape[0]
        self.counts = torch.cat([counted, torch.full((sampled,), -self.blocked / max(sampled, 1)).double()])

    def window(self, clock: float, missing: int) -> tuple[float, float]:
        """Return from when to when the last of those ``missing`` at ``clock`` will arrive; infinite where it cannot."""
        now = torch.exp(-clock * self.weights) * self.counts
        time, slope = clock, 0.0
        for _ in range(60):
            left = torch.exp(-time * self.weights) * self.counts
            gap, slope = missing - float((now - left).sum()), float(left @ self.weights)
            if abs(gap) < 0.1 * missing**0.5 or slope <= 0 or time - clock > REACH * self.free:
                break
            time += gap / slope  # the count is concave: Newton's steps come from below
        if slope <= 0:
            return math.inf, math.inf
        seen = torch.exp(-clock * self.sampled) - torch.exp(-time * self.sampled)
        error = self.blocked * float(seen.std()) / seen.numel() ** 0.5 if 1 < seen.numel() < self.blocked else 0.0
        margin = DEVIATIONS * (missing**0.5 + error) / slope
        return max(clock, time - margin), time + margin


def _classes(weights: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Group positive weights of like magnitude: the mean of each class, and how many it has."""
    logs = weights.log()
    low, high = logs.aminmax()
    index = ((logs - low) * (most / (high - low).clamp(min=1e-9))).long().clamp_(max=most - 1)
    counts = torch.bincount(index, minlength=most).double()
    some = counts > 0
    return torch.bincount(index, weights, minlength=most)[some] / counts[some], counts[some]
