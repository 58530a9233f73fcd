"""Grow the inactive connections of largest gradient (RigL: Evci et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option
from dstrun.layer.criterion import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class Gradient:
    """Score every inactive connection by |dL/dw|, the dense gradient of the current batch.

    With ``regrow`` a connection pruned in the same update may grow again, and then keeps its value, as in the authors'
    code.
    """

    regrow: bool = True

    cost: ClassVar[Cost] = Cost.DENSE_GRAD
    aggregates: ClassVar[bool] = False

    def candidates(self, context: GrowthContext) -> None:
        """Choose all inactive connections."""

    def score(self, gradient: Tensor | None, positions: Tensor | None, context: GrowthContext) -> Tensor:
        """Score by the gradient's magnitude."""
        assert gradient is not None
        return gradient.abs()
