"""Draw candidates from a factored distribution without ever forming it: p(o, i) ~ g[o] f[group(o), i].

Shape letters: O outputs, I inputs of one output, G groups, M candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dstrun.topology import contains, draw_distinct, first_of_each, inactive

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.exploration import Exploration

FLOOR = 1e-3
"""Every input and output keeps this share of the mean weight, so that none is out of reach where all are zero."""

ROUNDS = 8
"""Rejection rounds before the rest is drawn from the blocks of the exact conditional law."""


def draw(f: Tensor, g: Tensor, exploration: Exploration, wanted: int, exact: bool) -> Tensor:
    """Draw candidates outside ``exploration.blocked``.

    Args:
        f: (G, I) weights of the inputs of each group.
        g: (O,) weights of the outputs.
        exploration: names the blocked positions and the generator.
        wanted: how many to draw.
        exact: draw until min(wanted, free) distinct unblocked ones are found, which is successive sampling without
            replacement; else draw ``wanted`` with replacement once and drop repeated and blocked ones.

    Returns:
        (M,) positions, in the order drawn where ``exact``.
    """
    blocked, generator = exploration.blocked.cpu(), exploration.generator
    device = exploration.blocked.device
    wanted_free = min(wanted, exploration.free)
    if exact and (wanted_free == exploration.free or (_flat(f) and _flat(g))):
        return inactive(blocked, draw_distinct(exploration.free, wanted_free, generator)).to(device)
    pairs = _Pairs(f, g)
    if not exact:
        drawn = first_of_each(pairs.draw(wanted, generator))
        return drawn[~contains(blocked, drawn)].to(device)
    found = torch.empty(0, dtype=torch.int64)
    for _ in range(ROUNDS):
        missing = wanted_free - found.numel()
        fresh = pairs.draw(missing + missing // 4 + 16, generator)
        found = first_of_each(torch.cat([found, fresh[~contains(blocked, fresh)]]))
        if found.numel() >= wanted_free:
            return found[:wanted_free].to(device)
    taken = torch.cat([blocked, found]).sort().values
    return torch.cat([found, pairs.rest(taken, wanted_free - found.numel(), generator)]).to(device)


def _flat(weights: Tensor) -> bool:
    """Say whether all weights are equal."""
    return bool((weights == weights.flatten()[0]).all())


def _floored(weights: Tensor) -> Tensor:
    """Scale weights to a mean of 1, so that no product underflows, and add the floor; all zero count as equal."""
    mean = weights.mean()
    return weights / mean + FLOOR if mean > 0 else torch.ones_like(weights)


class _Pairs:
    """The factored distribution, as cumulative sums in float64 (float32 loses weights beyond 2^24)."""

    def __init__(self, f: Tensor, g: Tensor) -> None:
        f, g = f.detach().cpu().double(), g.detach().cpu().double()
        if not (bool(f.isfinite().all()) and bool(g.isfinite().all())):  # a diverging run: its loss will say so
            f, g = torch.ones_like(f), torch.ones_like(g)
        self.f, self.g = _floored(f), _floored(g)
        self.inputs = f.shape[1]
        self.group = torch.arange(g.numel()) // (g.numel() // f.shape[0])
        self.o_ends = (self.g * self.f.sum(1)[self.group]).cumsum(0)
        within = self.f.cumsum(1) / self.f.sum(1, keepdim=True)
        self.i_ends = (within.clamp_(max=1) + torch.arange(f.shape[0])[:, None]).flatten()  # group k ends at k + 1

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw positions with replacement: first the output by its share, then an input of its group: (count,)."""
        u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
        out = torch.searchsorted(self.o_ends, u * self.o_ends[-1], right=True).clamp_(max=self.g.numel() - 1)
        group = self.group[out]
        at = torch.searchsorted(self.i_ends, group + v, right=True) - group * self.inputs
        return out * self.inputs + at.clamp_(0, self.inputs - 1)

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
