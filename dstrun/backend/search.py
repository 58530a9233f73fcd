"""The best of all inactive connections without their dense gradient: block by block, keeping the best so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from dstrun.exploration import Exploration, Proposal, best
from dstrun.topology import contains
from dstrun.transfer import sent

if TYPE_CHECKING:
    from dstrun.geometry import Geometry
    from dstrun.grow.criterion import GrowCriterion

BLOCK = 1 << 20
"""Entries of the dense gradient that exist at once; half of the layer's at most."""


def best_of_all(criterion: GrowCriterion, exploration: Exploration) -> Proposal:
    """Score every free connection by its gradient in the exploration's pass, some outputs at a time."""
    inputs = exploration.size // exploration.geometry.shape[0]
    assert exploration.x is not None
    blocked = sent(exploration.blocked, exploration.x.device)
    found, finite = Proposal(blocked[:0], blocked[:0].float(), 0), []
    for first, last in _blocks(exploration.geometry, inputs):
        positions = torch.arange(first * inputs, last * inputs, device=blocked.device)
        free = ~contains(blocked, positions)
        gradient = exploration.weight_gradient(first, last)
        finite.append(gradient.isfinite().all())
        positions = positions[free]
        scores = criterion.score(gradient.flatten()[free], positions, exploration)
        found = best(torch.cat([found.scores.to(scores), scores]), torch.cat([found.positions, positions]), exploration)
    return dataclasses.replace(found, drawn=exploration.free, finite=torch.stack(finite).all())


def _blocks(geometry: Geometry, inputs: int) -> Iterator[tuple[int, int]]:
    """Yield the outputs to look at together, from first to last: some of one group, or several whole groups."""
    outputs, group = geometry.shape[0], geometry.shape[0] // geometry.groups
    together = max(1, min(BLOCK // inputs, outputs // 2))
    span, together = (outputs, together // group * group) if together >= group else (group, together)
    for start in range(0, outputs, span):
        for first in range(start, start + span, together):
            yield first, min(first + together, start + span)
