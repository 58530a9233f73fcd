"""What a method requests of a layer for growth, what a grow criterion can read, and what it returns.

Shape letters: A active connections, M candidates, N connections of the dense layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dstrun.layer.geometry import Geometry, exact
from dstrun.layer.selection import chosen, highest
from dstrun.system.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.criterion import GrowCriterion
    from dstrun.layer.interface import SparseLayer


@dataclass(frozen=True)
class GrowthRequest:
    """What a method requests of one layer: the best candidates for growth.

    Attributes:
        criterion: chooses and scores candidates.
        limit: how many candidates are of use; the best ``limit`` are kept.
        generator: on the CPU, so that every device draws the same.
        blocked: sorted positions that may not grow, on the CPU; those active when candidates are chosen if ``None``.
    """

    criterion: GrowCriterion
    limit: int
    generator: torch.Generator
    blocked: Tensor | None = None


@dataclass(frozen=True)
class GrowthContext:
    """What a grow criterion may look at in one layer.

    Attributes:
        geometry: how connections relate to inputs and outputs.
        active: A, the layer's number of active connections.
        blocked: sorted positions that may not grow; on the CPU.
        limit: no more than this many candidates are of use; the best ``limit`` are kept.
        generator: on the CPU, so that every device draws the same.
        x: the layer's input in this pass; ``None`` where the criterion needs no gradient, or where the batch takes
            several passes and nothing is summed over them.
        delta: the gradient of its output in this pass.
        ranks: the processes that share the batch; what is asked of it below is of the whole.
    """

    geometry: Geometry
    active: int
    blocked: Tensor
    limit: int
    generator: torch.Generator
    x: Tensor | None = None
    delta: Tensor | None = None
    ranks: Ranks = ALONE

    @classmethod
    def of(
        cls, layer: SparseLayer, request: GrowthRequest, x: Tensor | None = None, delta: Tensor | None = None
    ) -> GrowthContext:
        """Return what a layer has to show for a request now."""
        blocked = layer.topology.positions if request.blocked is None else request.blocked
        return cls(layer.geometry, layer.count, blocked, request.limit, request.generator, x, delta, layer.ranks)

    @property
    def size(self) -> int:
        """N, connections of the dense layer."""
        out, *rest = self.geometry.shape
        for extent in rest:
            out *= extent
        return out

    @property
    def free(self) -> int:
        """Connections that may grow."""
        return self.size - self.blocked.numel()

    def signs(self) -> Tensor:
        """Draw a Rademacher sign for every item of the batch; those of the items here."""
        assert self.delta is not None
        return self.geometry.signs(self.delta, self.generator, self.ranks)

    def input_sums(self, factor: Tensor | None) -> Tensor:
        """Sum the inputs over the items of the batch: (G, I), up to a factor; see ``Geometry.input_sums``."""
        assert self.x is not None
        with exact(self.x.device):
            return self.ranks.average(self.geometry.input_sums(self.x, factor))

    def output_sums(self, factor: Tensor | None) -> Tensor:
        """Sum the output gradients over the items of the batch: (O,), up to a factor."""
        assert self.delta is not None
        with exact(self.delta.device):
            return self.ranks.average(self.geometry.output_sums(self.delta, factor))

    def weight_gradient(self, first: int, last: int) -> Tensor:
        """Compute the dense gradient of some outputs over the batch; see ``Geometry.weight_gradient``."""
        assert self.x is not None
        assert self.delta is not None
        return self.ranks.average(self.geometry.weight_gradient(self.x, self.delta, first, last))


@dataclass(frozen=True)
class Proposal:
    """Candidates of one layer.

    Attributes:
        kept: (M,) int64, none of them blocked, in an order in which those of equal score come as they were named;
            where the scores are.
        kept_scores: (M,) float, in that order.
        drawn: how many candidates were scored to find these; their gradients are what growth costs.
        finite: whether all gradients looked at were; ``None`` where none was.
    """

    kept: Tensor
    kept_scores: Tensor
    drawn: int
    finite: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """The candidates, the highest score first: (M,)."""
        return self.kept[self._order]

    @property
    def scores(self) -> Tensor:
        """Their scores, descending: (M,)."""
        return self.kept_scores[self._order]

    @cached_property
    def _order(self) -> Tensor:
        return highest(self.kept_scores, self.kept_scores.numel())


def best(scores: Tensor, positions: Tensor | None, context: GrowthContext, finite: Tensor | None = None) -> Proposal:
    """Keep the ``limit`` highest scores; of equal ones those that come first among the candidates.

    Args:
        scores: (M,) of the candidates.
        positions: (M,) the candidates, where the scores are; ``None`` where all N positions are scored, blocked ones
            too.
        context: names the limit and what is blocked.
        finite: whether the gradients behind the scores are, if there are any.
    """
    drawn = context.free if positions is None else scores.numel()
    count = min(context.limit, drawn)
    if positions is None:
        top = chosen(scores, count, context.blocked)
        return Proposal(top, scores[top], drawn, finite)
    top = chosen(scores, count)
    return Proposal(positions[top], scores[top], drawn, finite)


def propose(layer: SparseLayer, request: GrowthRequest) -> Proposal:
    """Choose and score candidates at once, for a criterion that needs no gradient."""
    context = GrowthContext.of(layer, request)
    positions = request.criterion.candidates(context)
    return best(request.criterion.score(None, positions, context), positions, context)
