"""Erdos-Renyi-Kernel: Erdos-Renyi with kernel sizes counted like numbers of neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

from dstrun.allocation.apportion import ON_TOP, apportion, behind_first
from dstrun.config.option import Within, option


@option
class ERK:
    """Density proportional to ((out + in + kh + kw) / (out in kh kw))^power: sum over product of the shape.

    Evci et al. 2020, section 3; ``power=0`` is uniform. ``dense_first`` keeps the first layer dense, on top of the
    budget, as they do on CIFAR.
    """

    power: Annotated[float, Within(0, 10)] = 1.0
    dense_first: bool = False

    @property
    def words(self) -> str:
        """Return the rule in words."""
        power = "" if self.power == 1 else f", to the power of {self.power:g}"
        return f"Erdos-Renyi-Kernel, density ~ (in + out + kh + kw) / (in out kh kw){power}{ON_TOP * self.dense_first}"

    def counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        """Return each layer's exact number of active connections (see ``Allocation``)."""
        return behind_first(self._counts, shapes, sparsity) if self.dense_first else self._counts(shapes, sparsity)

    def _counts(self, shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
        sizes = [math.prod(shape) for shape in shapes]
        ratios = [Fraction(sum(shape), size) for shape, size in zip(shapes, sizes, strict=True)]
        if self.power != 1:
            ratios = [Fraction(float(ratio) ** self.power) for ratio in ratios]
        weights = [ratio * size for ratio, size in zip(ratios, sizes, strict=True)]
        return apportion(weights, sizes, sparsity)
