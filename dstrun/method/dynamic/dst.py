"""Dynamic sparse training by composition: at each update prune the worst connections and grow as many others.

Connections are ranked within a pool of layers: one layer each, or all layers together (``scope=global``).
Shape letters: A active connections of a layer, K replaced in a pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, OneOf, option
from dstrun.layer.criterion import Cost
from dstrun.layer.growth import GrowthRequest, Proposal, propose
from dstrun.layer.selection import chosen
from dstrun.layer.topology import ordered, without
from dstrun.method.dynamic.exchange import exchange
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.update import LayerUpdate, Update
from dstrun.schedule import update_steps
from dstrun.system.lazy import torch
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched

if TYPE_CHECKING:
    from torch import Tensor


@option
class DST(Method):
    """Replace the fraction a_t of the active connections at every update (``schedule`` sets when, and a_t).

    With ``batch=current`` a criterion that needs gradients uses those of the current batch, and the update replaces the
    step on that batch, as in RigL and in Algorithm 2 of GSE. With ``batch=fresh`` it uses a batch of
    ``samples_per_class`` fresh samples of each class (``null``: the batch size), in addition to the step, as in the
    code of the authors of both papers. A criterion that needs no gradients updates after the step, as in SET.
    ``rounding`` turns a_t A into a whole number of connections: ``ceil`` (Algorithm 2) or ``floor`` (RigL, SET, the
    code of the GSE authors).
    """

    batch: Annotated[str, OneOf("current", "fresh")] = "current"
    samples_per_class: Annotated[int, AtLeast(1)] | None = 10
    rounding: Annotated[str, OneOf("ceil", "floor")] = "ceil"

    parts: ClassVar[tuple[str, ...]] = ("prune", "grow", "schedule")
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")
    grows_at_zero: ClassVar[bool] = True

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        if parts["grow"] is None:
            return set()
        if parts["grow"].cost is Cost.NONE:
            return {"batch", "samples_per_class"}
        return {"samples_per_class"} if self.batch == "current" else set()

    def fresh_samples(self, batch_size: int, classes: int) -> int:
        """Count the samples of an update's own batch."""
        if self.batch == "current":
            return 0
        return batch_size if self.samples_per_class is None else self.samples_per_class * classes

    def procedure(self, setting: Setting) -> Procedure:
        """Start updating."""
        return Rewiring(setting, self.batch, self.samples_per_class, self.rounding)


@dataclass(frozen=True)
class Ranking:
    """Connections of a pool that are to go or to come, layer after layer.

    Attributes:
        position: of each; on the CPU.
        starts: where those of each layer begin, and where the last end.
        scores: of those that are to go, on the CPU; the lowest go first, and of equal ones those that come first.
    """

    position: Tensor
    starts: list[int]
    scores: Tensor | None = None

    @classmethod
    def of_pool(cls, places: Tensor, positions: Sequence[Tensor], scores: Tensor | None = None) -> Ranking:
        """Name connections of a pool.

        Args:
            places: which of the pool's entries, layer after layer; on the CPU.
            positions: of each layer's entries; on the CPU.
            scores: of those at ``places``, in an order in which equal ones come as the entries do.
        """
        if len(positions) == 1:
            return cls(positions[0][places], [0, places.numel()], scores)
        if scores is not None and ordered(places) is not places:
            places, order = places.sort()
            scores = scores[order]
        places, ends = ordered(places), torch.tensor([0, *(part.numel() for part in positions)]).cumsum(0)
        starts = torch.searchsorted(places, ends).tolist()
        parts = zip(positions, pairwise(starts), ends.tolist(), strict=False)
        return cls(torch.cat([part[places[one:other] - end] for part, (one, other), end in parts]), starts, scores)

    def __len__(self) -> int:
        return self.position.numel()

    def first(self, count: int) -> Ranking:
        """Return the ``count`` of lowest scores."""
        if count == len(self):
            return self
        assert self.scores is not None
        places = ordered(chosen(self.scores, count, low=True))
        return Ranking(self.position[places], torch.searchsorted(places, torch.tensor(self.starts)).tolist())

    def of(self, index: int) -> Tensor:
        """Return one layer's positions."""
        return self.position[self.starts[index] : self.starts[index + 1]]


class Rewiring(Procedure):
    """Prunes and grows at the steps of the schedule; ``DST`` says what the arguments mean."""

    plain: ClassVar[bool] = True

    def __init__(self, setting: Setting, batch: str, samples_per_class: int | None, rounding: str) -> None:
        self.setting, self.batch, self.samples_per_class, self.rounding = setting, batch, samples_per_class, rounding
        self.layers = setting.layers
        self.steps = set(update_steps(setting.schedule, setting.total_steps))
        indices = range(len(self.layers))
        self.pools = [list(indices)] if setting.scope == "global" else [[i] for i in indices]
        self.pruned: list[Ranking] = []

    def updates_at(self, step: int) -> bool:
        """Return whether the schedule has an update at a step."""
        return step in self.steps

    def before_step(self, step: int) -> Update | None:
        """Prepare the backward pass of an update step; with ``batch=fresh``, run a separate pass and update."""
        if step not in self.steps or self.setting.grow.cost is Cost.NONE:
            return None
        self.pruned = self._rank_for_pruning(step)
        for index, layer in enumerate(self.layers):
            layer.request_growth(self._request(step, index))
        if self.batch == "current":
            return None
        wanted = None if self.samples_per_class is None else self.samples_per_class * self.setting.classes
        samples = self.setting.fresh_pass(step, wanted)
        return self._update(step, [layer.proposal() for layer in self.layers], samples)

    def after_backward(self, step: int) -> Update | None:
        """Update on the current batch, in place of the optimizer's step."""
        if step not in self.steps or self.setting.grow.cost is Cost.NONE or self.batch == "fresh":
            return None
        return self._update(step, [layer.proposal() for layer in self.layers])

    def after_step(self, step: int) -> Update | None:
        """Update after the optimizer's step where the criterion needs no gradient."""
        if step not in self.steps or self.setting.grow.cost is not Cost.NONE:
            return None
        self.pruned = self._rank_for_pruning(step)
        proposals = [propose(layer, self._request(step, index)) for index, layer in enumerate(self.layers)]
        return self._update(step, proposals)

    def _fraction(self, step: int) -> float:
        return self.setting.schedule.fraction_at(step, self.setting.total_steps)

    def _stream(self, what: str, step: int, index: int) -> torch.Generator:
        return generator(self.setting.seed, what, step, index)

    def _rank_for_pruning(self, step: int) -> list[Ranking]:
        """Choose each pool's K worst active connections; the best of every layer is never pruned."""
        worst, scores = zip(*(self._worst(step, pool) for pool in self.pools), strict=True)
        found = zip(self.pools, fetched(worst), scores, strict=True)
        return [Ranking.of_pool(places, self._positions(pool), kept) for pool, places, kept in found]

    def _worst(self, step: int, pool: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return which of a pool's connections are the worst, and scores that rank them, on the CPU: (K,) each."""
        layers = [self.layers[index] for index in pool]
        active = sum(layer.count for layer in layers)
        replaced = self._fraction(step) * active
        wanted = math.ceil(replaced) if self.rounding == "ceil" else math.floor(replaced)
        wanted = min(wanted, active - len(layers))
        parts, best, before = [], [], 0
        for index, layer in zip(pool, layers, strict=True):
            parts.append(self.setting.prune.score(layer, self._stream("prune", step, index)))
            best.append(parts[-1].argmax() + before)
            before += layer.count
        scores = _joined(parts)
        places = chosen(scores, wanted, torch.stack(best), low=True)
        if scores.device.type == "cpu":
            return places, scores[places]
        return places, torch.arange(places.numel(), dtype=torch.float64)  # the worst come first, and none are fetched

    def _positions(self, pool: Sequence[int]) -> list[Tensor]:
        return [self.layers[index].topology.positions for index in pool]

    def _request(self, step: int, index: int) -> GrowthRequest:
        """Return what is requested of a layer: as many candidates as its pool loses."""
        ranking, place = next(
            (ranking, pool.index(index)) for ranking, pool in zip(self.pruned, self.pools, strict=True) if index in pool
        )
        blocked = None
        if self.setting.grow.regrow:
            blocked = without(self.layers[index].topology.positions, ranking.of(place))
        return GrowthRequest(self.setting.grow, len(ranking), self._stream("grow", step, index), blocked)

    def _update(self, step: int, proposals: Sequence[Proposal], samples: int = 0) -> Update:
        """Grow each pool's best candidates and prune as many of its worst connections; none on overflowed gradients."""
        changes: dict[int, LayerUpdate] = {}
        cost = self.setting.grow.cost
        replaces = cost is not Cost.NONE and self.batch == "current"
        if cost is not Cost.NONE and self.setting.overflowed(p.finite for p in proposals if p.finite is not None):
            self.pruned = []
            pairs = zip(self.layers, proposals, strict=True)
            same = [LayerUpdate.of(layer, candidates=proposal.drawn) for layer, proposal in pairs]
            return Update(step, cost, replaces, samples, same, skipped=True)
        positions, scored = fetched([p.kept for p in proposals]), fetched([p.kept_scores for p in proposals])
        for pool, pruned in zip(self.pools, self.pruned, strict=True):
            scores = _joined([scored[index] for index in pool])
            places = chosen(scores, min(len(pruned), scores.numel()))
            grown = Ranking.of_pool(places, [positions[index] for index in pool])
            pruned = pruned.first(len(grown))  # fewer than wanted where candidates run out
            for place, index in enumerate(pool):
                out, new, new_only = pruned.of(place), grown.of(place), not self.setting.grow.regrow
                changes[index] = exchange(self.layers[index], out, new, proposals[index].drawn, disjoint=new_only)
        self.pruned = []
        return Update(step, cost, replaces, samples, [changes[index] for index in range(len(self.layers))])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Join a pool's scores; those of one layer need no copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
