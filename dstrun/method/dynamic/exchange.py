"""Replace connections of one layer at the steps of a schedule, as composed and other methods do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstrun.layer.interface import SparseLayer
from dstrun.layer.topology import contains, ordered, without
from dstrun.method.update import LayerUpdate

if TYPE_CHECKING:
    from torch import Tensor


def exchange(layer: SparseLayer, pruned: Tensor, grown: Tensor, candidates: int, disjoint: bool = False) -> LayerUpdate:
    """Rewire one layer; a connection that is among both keeps its value and momentum.

    Args:
        layer: rewired.
        pruned: active positions.
        grown: positions that are inactive without those.
        candidates: how many were scored.
        disjoint: whether it is known that none is among both.
    """
    went, came = ordered(pruned), ordered(grown)
    if not disjoint:
        went, came = without(went, came), without(came, went)
    layer.rewire(went, came)
    return LayerUpdate.of(layer, went.numel(), came.numel(), candidates)


def exchanged(pruned: Tensor, grown: Tensor) -> tuple[int, int]:
    """Count the connections that went and that came, where some may have come back (at 0) at once.

    Args:
        pruned: sorted positions.
        grown: positions.
    """
    back = int(contains(pruned, grown).sum())
    return pruned.numel() - back, grown.numel() - back
