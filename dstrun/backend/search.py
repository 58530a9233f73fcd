"""The search for candidates inside a backward pass, or inside the several that a batch takes.

Shape letters: M candidates, N connections of the dense layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dstrun.backend.pattern import number_type
from dstrun.layer.growth import Exploration, Proposal, best
from dstrun.system.ranks import Passes, Sums
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from dstrun.layer.criterion import GrowCriterion
    from dstrun.layer.geometry import Geometry

BLOCK = 1 << 19
"""Entries of the dense gradient that exist at once; half of the layer's at most."""


class Search:
    """What an armed layer looks for: candidates drawn once, scored by their gradient over the whole batch.

    Where the batch takes several passes, a criterion that draws from sums over the batch has a round of passes that
    sum, and candidates are drawn at its end; others draw in the first pass.

    Args:
        criterion: chooses and scores candidates.
        blocked: sorted positions that may not grow, on the CPU; those active when the backward runs if ``None``.
        limit: how many candidates are of use.
        generator: on the CPU.
        passes: in which the batch is passed.
    """

    def __init__(
        self,
        criterion: GrowCriterion,
        blocked: Tensor | None,
        limit: int,
        generator: torch.Generator,
        passes: Passes,
    ) -> None:
        self.criterion, self.blocked, self.limit = criterion, blocked, limit
        self.generator, self.passes = generator, passes
        self._candidates: list[Tensor | None] = []
        self._sums: list[Tensor] = []
        self._gradient: Tensor | None = None
        passes.wanted |= criterion.aggregates

    def draw(self, exploration: Exploration) -> bool:
        """Draw candidates where it is time; return whether this pass is one that scores them."""
        passes, criterion = self.passes, self.criterion
        if passes.summing:
            draws = torch.Generator()
            draws.set_state(self.generator.get_state())  # every pass has its part of the same draws
            sums = Sums(exploration.ranks, passes, self._sums)
            partial = dataclasses.replace(exploration, ranks=sums, generator=draws)
            if passes.last:
                self._keep(criterion.candidates(partial), exploration.size)
                self._sums.clear()
            else:
                criterion.look(partial)
            return False
        if not self._candidates:
            seen = exploration if passes.count == 1 else dataclasses.replace(exploration, x=None, delta=None)
            self._keep(criterion.candidates(seen), exploration.size)
        return True

    def _keep(self, candidates: Tensor | None, size: int) -> None:
        """Keep candidates for the passes that follow, in as few bits as positions of a layer of that size take."""
        if candidates is not None and self.passes.count > 1:
            candidates = candidates.to(number_type(size), copy=True)  # PyTorch's memory is measured, numpy's is not
        self._candidates.append(candidates)

    @property
    def candidates(self) -> Tensor | None:
        """The candidates drawn, (M,) int64 on the CPU; ``None``: all that are free."""
        kept = self._candidates[0]
        return None if kept is None else kept.long()

    def add(self, gradient: Tensor) -> Tensor:
        """Add a pass's gradient of the candidates to those of the passes before; return the sum."""
        self._gradient = gradient if self._gradient is None else self._gradient.add_(gradient)
        return self._gradient


def dense_gradient(exploration: Exploration) -> Tensor:
    """Compute the gradient of all connections in the exploration's pass here: (N,)."""
    geometry, x, delta = exploration.geometry, exploration.x, exploration.delta
    assert x is not None
    assert delta is not None
    return geometry.weight_gradient(x, delta, 0, geometry.shape[0]).flatten()


def best_of_all(criterion: GrowCriterion, exploration: Exploration) -> Proposal:
    """Score every free connection by its gradient in the exploration's pass, some outputs at a time."""
    inputs = exploration.size // exploration.geometry.shape[0]
    assert exploration.x is not None
    blocked = sent(exploration.blocked, exploration.x.device)
    found, finite = Proposal(blocked[:0], blocked[:0].float(), 0), []
    for first, last in _blocks(exploration.geometry, inputs):
        found = _best_of_block(criterion, exploration, blocked, (first, last), found)
        finite.append(found.finite)
    return dataclasses.replace(found, drawn=exploration.free, finite=torch.stack(finite).all())


def _best_of_block(
    criterion: GrowCriterion, exploration: Exploration, blocked: Tensor, outputs: tuple[int, int], found: Proposal
) -> Proposal:
    """Score the free connections of some outputs, and keep the best of these and of those found before."""
    inputs = exploration.size // exploration.geometry.shape[0]
    gradient = exploration.weight_gradient(*outputs).flatten()
    finite = gradient.isfinite().all()
    free = torch.ones(gradient.numel(), dtype=torch.bool, device=gradient.device)
    start, end = torch.searchsorted(exploration.blocked, torch.tensor(outputs) * inputs).tolist()
    free.index_fill_(0, blocked[start:end] - outputs[0] * inputs, False)
    gradient, positions = gradient[free], free.nonzero().flatten().add_(outputs[0] * inputs)
    scores = criterion.score(gradient, positions, exploration)
    scores, positions = torch.cat([found.scores.to(scores), scores]), torch.cat([found.positions, positions])
    return best(scores, positions, exploration, finite)


def _blocks(geometry: Geometry, inputs: int) -> Iterator[tuple[int, int]]:
    """Yield the outputs to look at together, from first to last: some of one group, or several whole groups."""
    outputs, group = geometry.shape[0], geometry.shape[0] // geometry.groups
    together = max(1, min(BLOCK // inputs, outputs // 2))
    span, together = (outputs, together // group * group) if together >= group else (group, together)
    for start in range(0, outputs, span):
        for first in range(start, start + span, together):
            yield first, min(first + together, start + span)
