"""Grow inactive connections uniformly at random (SET: Mocanu et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option
from dstrun.layer.criterion import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class Random:
    """Score every inactive connection by an independent uniform number.

    Only the ``limit`` highest scores matter, so only these are drawn: their connections are uniform, and the scores are
    the logarithms of the highest order statistics of n independent uniforms, U_(n-j) = prod_{i<=j} V_i^(1/(n-i)), as
    log U still differs where float32 rounds U to 1. With ``regrow`` a connection pruned in the same update may grow
    again, and then keeps its value. With ``scope=global`` a layer grows in proportion to its inactive connections.
    """

    regrow: bool = True

    cost: ClassVar[Cost] = Cost.NONE
    aggregates: ClassVar[bool] = False

    def candidates(self, context: GrowthContext) -> Tensor:
        """Draw ``limit`` inactive connections uniformly without replacement."""
        from dstrun.layer.topology import draw_distinct, inactive

        count = min(context.limit, context.free)
        return inactive(context.blocked, draw_distinct(context.free, count, context.generator))

    def score(self, gradient: Tensor | None, positions: Tensor | None, context: GrowthContext) -> Tensor:
        """Draw the highest order statistics of the scores of all inactive connections."""
        import torch

        assert positions is not None
        count = positions.numel()
        uniform = torch.rand(count, generator=context.generator, dtype=torch.float64)
        left = context.free - torch.arange(count, dtype=torch.float64)
        return (uniform.log() / left).cumsum(0).float()
