"""What a prune criterion is: a score of every active connection; the lowest is pruned first."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


class PruneCriterion(Protocol):
    """Scores active connections."""

    needs_gradient: ClassVar[bool]
    """Whether it reads the gradient of the active connections, which is there after the optimizer's step."""

    def score(self, layer: SparseLayer, generator: torch.Generator) -> Tensor:
        """Score the active connections: (A,), in the order of ``layer.topology.positions``; on any device."""
        ...
