"""What a grow criterion is: candidates, and a score for each."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


class Cost(Enum):
    """Which gradients a criterion needs beyond the active ones; accounting reads it."""

    NONE = "none"
    CANDIDATE_GRAD = "candidate gradients"
    DENSE_GRAD = "dense gradient"


class GrowCriterion(Protocol):
    """Chooses candidates among inactive connections and scores them; the highest score is grown first."""

    cost: ClassVar[Cost]

    @property
    def regrow(self) -> bool:
        """Whether a connection pruned in the same update may grow again at once."""
        ...

    @property
    def aggregates(self) -> bool:
        """Whether candidates are drawn from sums over the pass's activations, which cost FLOPs too."""
        ...

    def look(self, context: GrowthContext) -> None:
        """Ask for the sums that ``candidates`` asks for, in the same order: called where a batch takes several passes.

        Only of a criterion that ``aggregates``; in all passes but the last, which ``candidates`` is called in.
        """
        ...

    def candidates(self, context: GrowthContext) -> Tensor | None:
        """Choose candidates: (M,) positions outside ``context.blocked``, on the CPU; ``None``: all of these.

        Called inside the layer's backward where ``cost`` asks for gradients, with ``x`` and ``delta`` of that pass.
        """
        ...

    def expected_candidates(self, active: int, size: int) -> int:
        """Predict how many candidates are scored in a layer of ``size`` connections, so many of them active.

        A criterion that has no such method is taken to score all that are inactive.
        """
        ...

    @property
    def paper_candidates(self) -> float:
        """How many candidates there are for an active connection in the cost formula of the criterion's paper.

        A criterion that has none is counted by ``expected_candidates``.
        """
        ...

    def score(self, gradient: Tensor | None, positions: Tensor | None, context: GrowthContext) -> Tensor:
        """Score candidates: (M,).

        Args:
            gradient: (M,) loss gradient at the candidates; ``None`` where ``cost`` is ``NONE``.
            positions: (M,) the candidates, where the gradient is; ``None`` where all positions of the layer are given
                in order, M = N.
            context: what the candidates were chosen from.
        """
        ...


def expected_candidates(criterion: GrowCriterion, active: int, size: int) -> int:
    """Predict how many candidates a criterion scores in a layer: as it says itself, or all that are inactive."""
    predict = getattr(criterion, "expected_candidates", None)
    return size - active if predict is None else predict(active, size)
