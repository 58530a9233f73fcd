"""Every inactive connection is as likely as any other; what the paper recommends (Heddes et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class Uniform:
    """f = 1, g = 1."""

    aggregates: ClassVar[bool] = False

    def factors(self, context: GrowthContext) -> tuple[Tensor, Tensor]:
        """Return f, (G, I), and g, (O,): ones."""
        import torch

        out, groups = context.geometry.shape[0], context.geometry.groups
        return torch.ones(groups, context.size // out), torch.ones(out)
