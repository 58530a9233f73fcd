"""The best of all inactive connections without their dense gradient: block by block, keeping the best so far."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from dstrun.exploration import Exploration, Proposal, best
from dstrun.topology import contains
from dstrun.transfer import sent

if TYPE_CHECKING:
    from dstrun.grow.criterion import GrowCriterion

BLOCK = 1 << 20
"""Entries of the dense gradient that exist at once; half of an output group's at most."""


def best_of_all(criterion: GrowCriterion, exploration: Exploration) -> Proposal:
    """Score every free connection by its gradient in the exploration's pass, some outputs at a time."""
    geometry = exploration.geometry
    outputs, inputs = geometry.shape[0] // geometry.groups, exploration.size // geometry.shape[0]
    together = max(1, min(BLOCK // inputs, outputs // 2))
    assert exploration.x is not None
    blocked = sent(exploration.blocked, exploration.x.device)
    found, finite = Proposal(blocked[:0], blocked[:0].float(), 0), []
    for group in range(geometry.groups):
        for first in range(group * outputs, (group + 1) * outputs, together):
            last = min(first + together, (group + 1) * outputs)
            positions = torch.arange(first * inputs, last * inputs, device=blocked.device)
            free = ~contains(blocked, positions)
            gradient = exploration.weight_gradient(group, first, last)
            finite.append(gradient.isfinite().all())
            positions = positions[free]
            scores = criterion.score(gradient.flatten()[free], positions, exploration)
            found = best(
                torch.cat([found.scores.to(scores), scores]), torch.cat([found.positions, positions]), exploration
            )
    return dataclasses.replace(found, drawn=exploration.free, finite=torch.stack(finite).all())
