"""Random growth: which inactive connections grow, in one layer or among several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from dstrun.layer.topology import draw_distinct, inactive, without
from dstrun.system.lazy import np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def draw(sizes: Sequence[int], blocked: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """Draw connections uniformly without replacement among all that are not blocked, of all layers.

    Args:
        sizes: N of each layer.
        blocked: sorted positions of each that may not grow.
        count: of all layers together.
        generator: on the CPU.

    Returns:
        Sorted positions of each layer, int64; ``count`` in all.

    Raises:
        ValueError: fewer than ``count`` are not blocked.
    """
    free = [size - out.numel() for size, out in zip(sizes, blocked, strict=True)]
    ranks, drawn = draw_ranks(free, count, generator)
    parts = zip(blocked, ranks.split(drawn), accumulate(free, initial=0), strict=False)
    return [inactive(out, part - first) for out, part, first in parts]


def draw_ranks(free: Sequence[int], count: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Draw uniformly without replacement among what is free in all layers.

    Args:
        free: how many connections of each layer may come.
        count: of all layers together.
        generator: on the CPU.

    Returns:
        Ranks, (count,) int64, sorted: those of the first layer are below ``free[0]``, those of the second follow. And
        how many are of each layer.

    Raises:
        ValueError: fewer than ``count`` are free.
    """
    ranks = draw_distinct(sum(free), count, generator).sort().values
    ends = np.searchsorted(ranks.numpy(), np.cumsum(free))
    return ranks, np.diff(ends, prepend=0).tolist()


def barred(active: Sequence[Tensor], pruned: Sequence[Tensor], sizes: Sequence[int], count: int) -> list[Tensor]:
    """Return which positions of each layer may not grow: those active before, the just pruned ones among them.

    Only where all layers together have fewer than ``count`` others may what was just pruned come back.

    Args:
        active: sorted positions of each layer before pruning.
        pruned: those of them that go.
        sizes: N of each layer.
        count: how many are to grow.
    """
    if sum(sizes) - sum(a.numel() for a in active) >= count:
        return list(active)
    return [without(a, p) for a, p in zip(active, pruned, strict=True)]
