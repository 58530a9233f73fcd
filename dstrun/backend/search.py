"""Growth candidates scored during the backward pass, or during the several passes of a batch.

Shape letters: M candidates, N connections of the dense layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dstrun.layer.growth import GrowthContext, GrowthRequest, Proposal, best
from dstrun.layer.topology import number_type
from dstrun.system.ranks import Passes, Sums
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from dstrun.layer.criterion import GrowCriterion
    from dstrun.layer.geometry import Geometry

BLOCK = 1 << 19
"""Entries of the dense gradient that exist at once; half of the layer's at most."""


class Proposes:
    """A layer that keeps what its armed backward pass has found until the method asks for it."""

    name: str
    _found: Proposal | None = None

    def proposal(self) -> Proposal:
        """Return what the armed backward found, and disarm."""
        if self._found is None:
            raise RuntimeError(f"{self.name}: no backward pass has run since growth was requested")
        found, self._found = self._found, None
        return found


class Search:
    """What an armed layer looks for: candidates drawn once, scored by their gradient over the whole batch.

    Where the batch takes several passes, a criterion that draws from sums over the batch has a round of passes that
    sum, and candidates are drawn at its end; others draw in the first pass.

    Args:
        request: of the method.
        passes: in which the batch is passed.
    """

    def __init__(self, request: GrowthRequest, passes: Passes) -> None:
        self.request, self.passes = request, passes
        self._candidates: list[Tensor | None] = []
        self._sums: list[Tensor] = []
        self._gradient: Tensor | None = None
        passes.wanted |= request.criterion.aggregates

    def draw(self, context: GrowthContext) -> bool:
        """Draw candidates where it is time; return whether this pass is one that scores them."""
        passes, criterion = self.passes, self.request.criterion
        if passes.summing:
            draws = torch.Generator()
            draws.set_state(self.request.generator.get_state())  # every pass has its part of the same draws
            sums = Sums(context.ranks, passes, self._sums)
            partial = dataclasses.replace(context, ranks=sums, generator=draws)
            if passes.last:
                self._keep(criterion.candidates(partial), context.size)
                self._sums.clear()
            else:
                criterion.look(partial)
            return False
        if not self._candidates:
            seen = context if passes.count == 1 else dataclasses.replace(context, x=None, delta=None)
            self._keep(criterion.candidates(seen), context.size)
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


def dense_gradient(context: GrowthContext) -> Tensor:
    """Compute the gradient of all connections in the context's pass here: (N,)."""
    geometry, x, delta = context.geometry, context.x, context.delta
    assert x is not None
    assert delta is not None
    return geometry.weight_gradient(x, delta, 0, geometry.shape[0]).flatten()


def best_by_gradient(
    criterion: GrowCriterion, gradient: Tensor, positions: Tensor | None, context: GrowthContext
) -> Proposal:
    """Score candidates by their gradient, and keep the best."""
    finite = gradient.isfinite().all()  # before there are scores, which take as much memory
    return best(criterion.score(gradient, positions, context), positions, context, finite)


def best_of_all(
    criterion: GrowCriterion, context: GrowthContext, gradient: Callable[[int, int], Tensor] | None = None
) -> Proposal:
    """Score every free connection by its gradient in the context's pass, some outputs at a time.

    Args:
        criterion: that scores.
        context: of the layer.
        gradient: gives the dense gradient of the outputs from one to another, over the batch; the context's own by
            default.
    """
    gradient = gradient or context.weight_gradient
    inputs = context.size // context.geometry.shape[0]
    assert context.x is not None
    blocked = sent(context.blocked, context.x.device)
    found, finite = Proposal(blocked[:0], blocked[:0].float(), 0), []
    for outputs in _blocks(context.geometry, inputs):
        found = _best_of_block(criterion, context, gradient(*outputs).flatten(), outputs[0] * inputs, found)
        finite.append(found.finite)
    return dataclasses.replace(found, drawn=context.free, finite=torch.stack(finite).all())


def _best_of_block(
    criterion: GrowCriterion, context: GrowthContext, gradient: Tensor, first: int, found: Proposal
) -> Proposal:
    """Score the free connections from ``first`` on by their gradient; keep the best of them and those found before."""
    from dstrun.layer import lists

    finite = gradient.isfinite().all()
    start, end = torch.searchsorted(context.blocked, torch.tensor([first, first + gradient.numel()])).tolist()
    count = gradient.numel() - (end - start)
    free = torch.empty(count, dtype=torch.int64)
    lists.gaps(context.blocked[start:end].numpy(), first, free.numpy())
    free = sent(free, gradient.device)
    gradient, positions = gradient[free], free.add_(first)
    scores = criterion.score(gradient, positions, context)
    scores, positions = torch.cat([found.kept_scores.to(scores), scores]), torch.cat([found.kept, positions])
    return best(scores, positions, context, finite)


def _blocks(geometry: Geometry, inputs: int) -> Iterator[tuple[int, int]]:
    """Yield the outputs to look at together, from first to last: some of one group, or several whole groups."""
    outputs, group = geometry.shape[0], geometry.shape[0] // geometry.groups
    together = max(1, min(BLOCK // inputs, outputs // 2))
    span, together = (outputs, together // group * group) if together >= group else (group, together)
    for start in range(0, outputs, span):
        for first in range(start, start + span, together):
            yield first, min(first + together, start + span)
