"""Keep the best connections, in each layer or among all.

Shape letters: A active connections of a layer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.layer.interface import SparseLayer
from dstrun.layer.selection import highest, owners
from dstrun.method.update import LayerUpdate
from dstrun.system.lazy import torch
from dstrun.system.transfer import fetched
from dstrun.system.wording import few

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("dstrun")


class EmptyLayer(RuntimeError):
    """A layer has lost its last connection, and ``strict`` refuses that."""


def keep_best(
    layers: Sequence[SparseLayer],
    scores: Sequence[Tensor],
    counts: Sequence[int] | None,
    budget: int,
    strict: bool = False,
) -> list[LayerUpdate]:
    """Prune all but the connections of highest score.

    Args:
        layers: pruned.
        scores: (A,) of each layer, in the order of its positions; equal ones go by layer and position.
        counts: to keep in each layer; ``None`` ranks all layers together, and a layer may then lose every connection.
        budget: to keep over all layers where ``counts`` is ``None``.
        strict: refuse a layer without connections instead of warning.

    Raises:
        EmptyLayer: so that nothing is pruned.
    """
    chosen = best(scores, counts, budget)
    emptied = [x.name for x, keep in zip(layers, chosen, strict=True) if x.count and not keep.numel()]
    guard(emptied, len(layers), strict)
    return [drop(layer, _others(layer.count, keep)) for layer, keep in zip(layers, chosen, strict=True)]


def best(scores: Sequence[Tensor], counts: Sequence[int] | None, budget: int) -> list[Tensor]:
    """Return the indices of the highest scores of each layer: ``counts`` of them, or ``budget`` among all layers.

    On the CPU.
    """
    if counts is not None:
        return fetched([highest(s, min(count, s.numel())) for s, count in zip(scores, counts, strict=True)])
    kept = highest(torch.cat([s.flatten() for s in scores]), budget).cpu()
    owner, starts = owners(kept, [s.numel() for s in scores])
    return [kept[owner == i] - start for i, start in enumerate(starts)]


def drop(layer: SparseLayer, indices: Tensor) -> LayerUpdate:
    """Prune the active connections at these indices of a layer's positions; on the CPU."""
    positions = layer.topology.positions
    layer.rewire(positions[indices], positions[:0])
    return LayerUpdate.of(layer, indices.numel())


def guard(emptied: Sequence[str], layers: int, strict: bool) -> None:
    """Return which of so many layers are about to lose their last connection.

    Raises:
        EmptyLayer: ``strict`` is set.
    """
    if not emptied:
        return
    names = f"{few(emptied)}, {len(emptied)} of {layers} layers"
    if strict:
        raise EmptyLayer(f"no connection would be left in {names}, and strict=true refuses that")
    log.warning("no connection is left in %s: only biases and shortcuts pass there", names)


def _others(count: int, kept: Tensor) -> Tensor:
    out = torch.ones(count, dtype=torch.bool).index_fill_(0, kept, False)
    return out.nonzero().flatten()
