"""The same density in every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dstrun.allocation.apportion import ON_TOP, apportion, behind_first
from dstrun.config.option import option


@option
class Uniform:
    """Density 1 - s in every layer; ``dense_first`` keeps the first one dense.

    With ``dense_first`` (Evci et al. 2020, for ImageNet) the other layers still have density 1 - s, so the sparsity of
    the network is a little below s: N_0 + round((1 - s) (N - N_0)) connections.
    """

    dense_first: bool = True

    @property
    def words(self) -> str:
        """Return the rule in words."""
        return f"the same density in every layer{ON_TOP * self.dense_first}"

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Return each layer's exact number of active connections (see ``Allocation``)."""
        return behind_first(self._counts, shapes, sparsity) if self.dense_first else self._counts(shapes, sparsity)

    def _counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        sizes = [math.prod(shape) for shape in shapes]
        return apportion(sizes, sizes, sparsity) if sizes else []
