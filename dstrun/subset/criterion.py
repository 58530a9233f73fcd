"""What a subset distribution is: two non-negative vectors, p(a, b) ~ f[a] g[b]; never a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


class SubsetDistribution(Protocol):
    """Weighs the inputs and the outputs of a layer by one pass's activations and output gradients."""

    aggregates: ClassVar[bool]
    """Whether the vectors are sums over the pass, which cost FLOPs."""

    def factors(self, context: GrowthContext) -> tuple[Tensor, Tensor]:
        """Return f, (G, I) over the inputs of each group, and g, (O,) over the outputs; not normalised."""
        ...
