"""Keep the best connections, in each layer or among all.

Shape letters: A active connections of a layer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from dstrun.layer import SparseLayer
from dstrun.method.procedure import Change
from dstrun.method.upload import upload
from dstrun.selection import highest

log = logging.getLogger("dstrun")


class EmptyLayer(RuntimeError):
    """A layer has lost its last connection, and ``strict`` refuses that."""


def keep_best(
    layers: Sequence[SparseLayer],
    scores: Sequence[Tensor],
    counts: Sequence[int] | None,
    budget: int,
    strict: bool = False,
) -> list[Change]:
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
    masks = [
        torch.zeros(layer.count, dtype=torch.bool, device=keep.device).index_fill_(0, keep, True)
        for layer, keep in zip(layers, chosen, strict=True)
    ]
    return [drop(layer, others(m, k.numel())) for layer, m, k in zip(layers, masks, chosen, strict=True)]


def best(scores: Sequence[Tensor], counts: Sequence[int] | None, budget: int) -> list[Tensor]:
    """Give the indices of the highest scores of each layer: ``counts`` of them, or ``budget`` among all layers.

    These are in no order that means anything.
    """
    if counts is not None:
        return [highest(s, min(count, s.numel())) for s, count in zip(scores, counts, strict=True)]
    kept = highest(torch.cat([s.flatten() for s in scores]), budget).sort().values
    starts = list(accumulate((s.numel() for s in scores), initial=0))
    cuts = torch.searchsorted(kept, upload(torch.tensor(starts[1:-1]), kept.device)).tolist()
    return [part - start for part, start in zip(kept.tensor_split(cuts), starts, strict=False)]


def drop(layer: SparseLayer, indices: Tensor) -> Change:
    """Prune the active connections at these indices of a layer's positions."""
    positions = layer.topology.positions
    layer.rewire(positions[upload(indices, positions.device)], positions[:0])
    return Change(layer.name, layer.count, indices.numel(), 0, 0, layer.explored())


def guard(emptied: Sequence[str], layers: int, strict: bool) -> None:
    """Return which of so many layers are about to lose their last connection.

    Raises:
        EmptyLayer: ``strict`` is set.
    """
    if not emptied:
        return
    names = f"{', '.join(emptied[:4])}{f' and {len(emptied) - 4} more' if len(emptied) > 4 else ''}"
    names += f", {len(emptied)} of {layers} layers"
    if strict:
        raise EmptyLayer(f"no connection would be left in {names}, and strict=true refuses that")
    log.warning("no connection is left in %s: nothing passes there but biases and shortcuts", names)


def others(kept: Tensor, count: int) -> Tensor:
    """Give the indices that are not kept, sorted, without waiting for a GPU.

    Args:
        kept: (A,) bool.
        count: how many are.
    """
    if kept.is_cuda and kept.numel():
        return torch.nonzero_static(~kept, size=kept.numel() - count).flatten()
    return (~kept).nonzero().flatten()
