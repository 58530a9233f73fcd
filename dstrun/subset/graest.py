"""Gradient estimate: E[(sum s h)(sum s delta)] = dL/dw for random signs s (GraEst: Heddes et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class GraEst:
    """f[a] = |sum_p s[p] h[p, a]|, g[b] = |sum_p s[p] delta[p, b]|, one Rademacher sign s[p] an item.

    Deviation: signs are drawn afresh for every layer and batch and, for convolutions, for every sample and output
    position; the authors' code reuses them over batches and reads only the first position of a convolution.
    """

    aggregates: ClassVar[bool] = True

    def factors(self, context: GrowthContext) -> tuple[Tensor, Tensor]:
        """Return f, (G, I), and g, (O,), from the pass's activations h and output gradients delta."""
        signs = context.signs()
        return context.input_sums(signs).abs(), context.output_sums(signs).abs()
