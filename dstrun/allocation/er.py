"""Erdos-Renyi random graphs: as many connections as neurons, times a constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dstrun.allocation.apportion import apportion
from dstrun.option import option


@option
class ER:
    """Density proportional to (n_out + n_in) / (n_out n_in), with the fan-in of a convolution n_in = in kh kw.

    Mocanu et al. 2018, equation 1; for convolutions Heddes et al. 2024. Evci et al. 2020 name "Erdos-Renyi" a
    formula that leaves the kernel out; theirs with the kernel is ``erk``.
    """

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Give each layer its exact number of active connections (see ``Allocation``)."""
        sizes = [math.prod(shape) for shape in shapes]
        neurons = [shape[0] + math.prod(shape[1:]) for shape in shapes]
        return apportion(neurons, sizes, sparsity)
