"""The same density in every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dstrun.allocation.apportion import apportion
from dstrun.option import option


@option
class Uniform:
    """Density 1 - s in every layer; ``dense_first`` keeps the first one dense.

    With ``dense_first`` (Evci et al. 2020, for ImageNet) the others still have density 1 - s, so that the sparsity
    of the whole lies a little below s: N_0 + round((1 - s) (N - N_0)) connections.
    """

    dense_first: bool = True

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Give each layer its exact number of active connections (see ``Allocation``)."""
        sizes = [math.prod(shape) for shape in shapes]
        dense = sizes[:1] if self.dense_first else []
        sizes = sizes[len(dense) :]
        return dense + (apportion(sizes, sizes, sparsity) if sizes else [])
