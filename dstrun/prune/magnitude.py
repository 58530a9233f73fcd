"""Prune the weights of smallest magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


@option
class Magnitude:
    """Score |w|."""

    needs_gradient: ClassVar[bool] = False

    def score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Score the active connections by magnitude: (A,)."""
        return layer.values().abs()
