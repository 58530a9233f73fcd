"""Prune the weights of smallest magnitude and gradient together (MEST: Yuan et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import AtLeast, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


@option
class Importance:
    """Score |w| + lambda |g|, g the gradient of the step just taken; lambda is ``coefficient``.

    A gradient that overflowed, and so left the step out (fp16), counts as 0.
    """

    coefficient: Annotated[float, AtLeast(0)] = 0.01

    needs_gradient: ClassVar[bool] = True

    def score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Score the active connections by magnitude and gradient: (A,)."""
        return layer.values().abs() + self.coefficient * layer.grad().nan_to_num(0.0, 0.0, 0.0).abs()
