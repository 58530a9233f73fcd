"""Prune connections uniformly at random: the control for every other criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


@option
class Random:
    """Score by an independent uniform number."""

    needs_gradient: ClassVar[bool] = False

    def score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Draw a score for every active connection: (A,)."""
        import torch

        return torch.rand(layer.count, generator=generator)
