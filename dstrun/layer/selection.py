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
"""Scores that are looked at together, so that what they need besides stays in a cache."""


def highest(scores: Tensor, count: int, excluded: Tensor | None = None) -> Tensor:
    """Return the indices of the ``count`` highest scores, highest first, equal ones by ascending index.

    Args:
        scores: (M,) floating point; -0 equals 0.
        count: K, at most M less those excluded.
        excluded: sorted indices that are not to be chosen; each in [0, M).

    Returns:
        (K,) int64, where the scores are.
    """
    exact = scores.dtype != torch.float64 and scores.numel() <= 1 << 32
    if scores.device.type == "cpu" and exact:
        kept = _lowest_keys(scores.detach(), count, excluded)
        return torch.from_numpy((kept & np.uint64(INDEX)).astype(np.int64))
    order = scores.detach().nan_to_num(-math.inf, math.inf, -math.inf).sort(descending=True, stable=True).indices
    if excluded is not None:
        out = torch.zeros(order.shape, dtype=torch.uint8, device=order.device)
        out.index_fill_(0, sent(excluded, order.device), 1)
        order = order[out[order].sort(stable=True).indices]  # a mask would make the host wait for its size
    return order[:count]


def lowest(scores: Tensor, count: int, excluded: Tensor | None = None) -> Tensor:
    """Return the indices of the ``count`` lowest scores, lowest first; else as ``highest``."""
    return highest(-scores, count, excluded)


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


def _lowest_keys(scores: Tensor, count: int, excluded: Tensor | None) -> NDArray[np.uint64]:
    """Return the ``count`` lowest keys, sorted, in memory of the order of ``count``."""
    out = np.empty(0, np.int64) if excluded is None else excluded.cpu().numpy()
    kept, waiting, bound = np.empty(0, np.uint64), [], None
    for start in range(0, scores.numel() if count else 0, BLOCK):
        waiting.append(_keys(scores[start : start + BLOCK].float().numpy(), start, out, bound))
        if sum(map(len, waiting)) > max(count, BLOCK):
            kept, waiting = _first(np.concatenate([kept, *waiting]), count), []
            bound = scores[int(kept.max() & np.uint64(INDEX))].float().nan_to_num(-math.inf, math.inf, -math.inf).item()
    return np.sort(_first(np.concatenate([kept, *waiting]), count))


def _keys(block: NDArray[np.float32], start: int, out: NDArray[np.int64], bound: float | None) -> NDArray[np.uint64]:
    """Return keys that ascend as scores descend and indices ascend; only of scores above a bound, where there is one.

    Where ``count`` scores before this block are no lower than the bound, those equal to it come too late.
    """
    worthy = np.ones(block.size, bool) if bound is None else block > bound
    first, last = np.searchsorted(out, (start, start + block.size))
    worthy[out[first:last] - start] = False
    at = np.flatnonzero(worthy)
    scores = block[at]
    bits = (np.where(np.isnan(scores), np.float32(-np.inf), scores) + np.float32(0)).view(np.uint32)
    falling = np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFFFFFF))
    return (falling.astype(np.uint64) << np.uint64(32)) | (at + start).astype(np.uint64)


def _first(keys: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    return np.partition(keys, count - 1)[:count] if 0 < count < keys.size else keys
