"""Gradient bound: |dL/dw| <= (sum |h|)(sum |delta|) (GraBo: Heddes et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class GraBo:
    """f[a] = sum_p |h[p, a]|, g[b] = sum_p |delta[p, b]|, over the items p of the batch."""

    aggregates: ClassVar[bool] = True

    def factors(self, context: GrowthContext) -> tuple[Tensor, Tensor]:
        """Return f, (G, I), and g, (O,), from the pass's activations h and output gradients delta."""
        return context.input_sums(None), context.output_sums(None)
