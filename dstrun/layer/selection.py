"""The highest or lowest of many scores in a deterministic order: by score, ties by index.

So every backend and device that computes the same scores chooses the same connections. A score that is not a number
counts as the last of all: as -inf among the highest, as +inf among the lowest.
Shape letters: M scores, K kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.system.lazy import np, torch
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

INDEX = 0xFFFFFFFF
"""The lower half of a key."""

BLOCK = 1 << 18
"""Scores that one thread looks at together."""


def highest(scores: Tensor, count: int, excluded: Tensor | None = None) -> Tensor:
    """Return the indices of the ``count`` highest scores, highest first, equal ones by ascending index.

    Args:
        scores: (M,) floating point; -0 equals 0.
        count: K, at most M less those excluded.
        excluded: sorted indices that are not to be chosen; each in [0, M).

    Returns:
        (K,) int64, where the scores are.
    """
    return _ordered(scores, count, excluded, low=False)


def lowest(scores: Tensor, count: int, excluded: Tensor | None = None) -> Tensor:
    """Return the indices of the ``count`` lowest scores, lowest first; else as ``highest``."""
    return _ordered(scores, count, excluded, low=True)


def chosen(scores: Tensor, count: int, excluded: Tensor | None = None, low: bool = False) -> Tensor:
    """Return the same indices as ``highest``, or ``lowest``, in an order in which equal scores come by index.

    On a CPU it is ascending, and nothing is sorted.
    """
    if not _is_compiled(scores):
        return _ordered(scores, count, excluded, low)
    if count == scores.numel():
        return torch.arange(count)
    from dstrun.layer.radix import chosen as choose

    out = torch.empty(0, dtype=torch.int64) if excluded is None else excluded.cpu()
    numbers = scores.detach().float().contiguous().numpy()
    return torch.from_numpy(choose(numbers, count, out.numpy(), low, torch.get_num_threads(), BLOCK))


def _ordered(scores: Tensor, count: int, excluded: Tensor | None, low: bool) -> Tensor:
    if _is_compiled(scores):
        kept = chosen(scores, count, excluded, low)
        keys = _keys(scores.detach()[kept].float().numpy(), kept.numpy(), low)
        return torch.from_numpy((np.sort(keys) & np.uint64(INDEX)).astype(np.int64))
    scores = (-scores if low else scores).detach().nan_to_num(-math.inf, math.inf, -math.inf)
    order = scores.sort(descending=True, stable=True).indices
    if excluded is not None:
        out = torch.zeros(order.shape, dtype=torch.uint8, device=order.device)
        out.index_fill_(0, sent(excluded, order.device), 1)
        order = order[out[order].sort(stable=True).indices]  # a mask would make the host wait for its size
    return order[:count]


def _is_compiled(scores: Tensor) -> bool:
    """Return whether compiled code ranks them: on a CPU, as 32 bits."""
    return scores.device.type == "cpu" and scores.dtype != torch.float64 and scores.numel() <= 1 << 32


def owners(order: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Return whose an order's entries are, where those of several layers are ranked together, layer after layer.

    Args:
        order: (K,) indices among all entries; on the CPU.
        sizes: how many entries each layer has.

    Returns:
        (K,) the layer of each index; and the index at which every layer's entries start.
    """
    ends = torch.tensor(sizes).cumsum(0)
    return torch.searchsorted(ends, order, right=True), [0, *ends.tolist()][:-1]


def _keys(scores: NDArray[np.float32], at: NDArray[np.int64], low: bool) -> NDArray[np.uint64]:
    """Return keys of scores and their indices that ascend as scores descend, or, ``low``, ascend, and then indices."""
    scores = -scores if low else scores
    bits = (np.where(np.isnan(scores), np.float32(-np.inf), scores) + np.float32(0)).view(np.uint32)
    falling = np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFFFFFF))
    return (falling.astype(np.uint64) << np.uint64(32)) | at.astype(np.uint64)
