"""What a topology update changed, and what a step computed: reported by methods and counted by the meters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dstrun.layer.criterion import Cost
from dstrun.system.transfer import numbers

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.interface import SparseLayer


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer; ``explored`` as the layer gives it, a float once it is part of an update."""

    layer: str
    active: int
    pruned: int
    grown: int
    candidates: int
    explored: float | Tensor

    @classmethod
    def of(cls, layer: SparseLayer, pruned: int = 0, grown: int = 0, candidates: int = 0) -> LayerUpdate:
        """Report on a layer after an update."""
        return cls(layer.name, layer.count, pruned, grown, candidates, layer.explored())


@dataclass(frozen=True)
class Update:
    """One update of the topology.

    Attributes:
        step: counted from 1; 0 before the first.
        cost: which gradients it needed.
        replaces_step: whether it took the place of the optimizer's step.
        samples: scored besides the step's own batch, each one pass forward and backward; a method that passes over a
            sample several times counts it as often.
        changes: one a layer, in the layers' order.
        skipped: whether the gradients it needed overflowed (fp16), so that nothing was pruned or grown.
    """

    step: int
    cost: Cost
    replaces_step: bool
    samples: int
    changes: list[LayerUpdate]
    skipped: bool = False

    def __post_init__(self) -> None:
        shares = numbers([change.explored for change in self.changes])
        changes = [replace(change, explored=share) for change, share in zip(self.changes, shares, strict=True)]
        object.__setattr__(self, "changes", changes)


@dataclass(frozen=True)
class ProductCounts:
    """How many connections of each layer take part in the three products of a training step."""

    forward: list[int]
    input_gradient: list[int]
    weight_gradient: list[int]

    @classmethod
    def of(cls, active: Sequence[int], weight_gradient: Sequence[int] | None = None) -> ProductCounts:
        """Use the active connections in all three products, unless gradients of others are computed too."""
        return cls(list(active), list(active), list(active if weight_gradient is None else weight_gradient))
