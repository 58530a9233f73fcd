"""Prune the weights nearest to zero of each sign: SET's own rule (Mocanu et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


@option
class Sign:
    """Score the rank of |w| among the weights of the same sign, as a share of their number; a weight of 0 scores 0.

    The lowest share zeta of all scores is thus the share zeta of the smallest positive weights together with that of
    the largest negative ones. Equal weights are ranked by position.
    """

    needs_gradient: ClassVar[bool] = False

    def score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Score the active connections by their rank within their sign: (A,), in [0, 1]."""
        import torch

        values = layer.values().cpu()  # how many there are of each sign has to be known there
        scores = torch.zeros(values.shape)
        for side in (values > 0, values < 0):
            own = side.nonzero().flatten()
            order = own[values[own].abs().sort(stable=True).indices]
            scores[order] = torch.arange(1, own.numel() + 1) / max(1, own.numel())
        return scores
