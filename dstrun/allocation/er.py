"""Erdos-Renyi random graphs: as many connections as neurons, times a constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from dstrun.allocation.apportion import ON_TOP, apportion, behind_first
from dstrun.config.option import OneOf, option


@option
class ER:
    """Density proportional to (n_out + n_in) / (n_out n_in) (Mocanu et al. 2018, equation 1).

    For convolutions the kernel is flattened into one side of the bipartite graph: ``flatten=fan_in`` has n_in = in kh
    kw and n_out = out, as in the released code of Heddes et al. 2024; ``flatten=fan_out`` has n_in = in and n_out = out
    kh kw, as in their published figures (supplement, figure 9). Linear layers are the same in both. The "Erdos-Renyi"
    of Evci et al. 2020 ignores the kernel size; their formula with the kernel is ``erk``. ``dense_first`` keeps the
    first layer dense, on top of the budget.
    """

    flatten: Annotated[str, OneOf("fan_in", "fan_out")]
    dense_first: bool = False

    @property
    def words(self) -> str:
        """Return the rule in words."""
        sides = {"fan_in": "n_in = in kh kw, n_out = out", "fan_out": "n_in = in, n_out = out kh kw"}[self.flatten]
        return f"Erdos-Renyi, connections ~ n_in + n_out with {sides}{ON_TOP * self.dense_first}"

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Return each layer's exact number of active connections (see ``Allocation``)."""
        return behind_first(self._counts, shapes, sparsity) if self.dense_first else self._counts(shapes, sparsity)

    def _counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        kernels = [math.prod(shape[2:]) for shape in shapes]
        if self.flatten == "fan_in":
            neurons = [out + inputs * kernel for (out, inputs, *_), kernel in zip(shapes, kernels, strict=True)]
        else:
            neurons = [out * kernel + inputs for (out, inputs, *_), kernel in zip(shapes, kernels, strict=True)]
        return apportion(neurons, [math.prod(shape) for shape in shapes], sparsity)
