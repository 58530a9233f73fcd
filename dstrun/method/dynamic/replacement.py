"""What deep rewiring replaces in a step, chosen on the CPU: how many connections of each layer, and which grow.

Shape letters: A active connections of all layers together, P pruned, K drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrun.method.dynamic.drawing import draw_ranks
from dstrun.system.lazy import np, torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Replacement:
    """What goes and comes, of all layers together.

    Attributes:
        pruned: (P,) int64, sorted indices among the active connections.
        lost: how many of them each layer has.
        spared: those of them that start again at 0, whose layers would have lost all to others.
        ranks: (K,) int64, sorted: which of the connections that may grow come; with the spared ones P.
        grown: how many come in each layer, the spared ones included.
        returning: layers in which connections that were just pruned may come.
    """

    pruned: NDArray[np.int64]
    lost: list[int]
    spared: list[int]
    ranks: Tensor
    grown: list[int]
    returning: set[int]

    def blocked(self, active: NDArray[np.int64]) -> NDArray[np.int64]:
        """List which positions may not grow: the active ones, but for those that may return."""
        if not self.returning:
            return active
        stays = np.ones(active.size, bool)
        owner = np.repeat(np.arange(len(self.lost)), self.lost)
        stays[self.pruned[np.isin(owner, list(self.returning))]] = False
        stays[self.spared] = True
        return active[stays]


def choose(
    pruned: NDArray[np.int64],
    lost: list[int],
    spared: dict[int, int],
    free: Sequence[int],
    pools: Sequence[Sequence[int]],
    generator: Callable[[int], torch.Generator],
) -> Replacement:
    """Draw as many connections in each pool as it loses, uniformly among its inactive ones.

    Only where these are fewer may what was just pruned come back.

    Args:
        pruned: (P,) int64, sorted indices among the active connections of all layers.
        lost: how many of them each layer has.
        spared: of some layers, the one of them that starts again.
        free: inactive connections of each layer.
        pools: layers that trade connections, in order.
        generator: of a pool, on the CPU.
    """
    ranks, grown, returning, before = [torch.empty(0, dtype=torch.int64)], [0] * len(lost), set[int](), 0
    for number, pool in enumerate(pools):
        going = [lost[layer] - (layer in spared) for layer in pool]
        may = [free[layer] for layer in pool]
        if sum(may) < sum(going):
            may = [m + g for m, g in zip(may, going, strict=True)]
            returning |= set(pool)
        if sum(going):
            drawn, parts = draw_ranks(may, sum(going), generator(number))
            ranks.append(drawn + before)
            for layer, part in zip(pool, parts, strict=True):
                grown[layer] = part
        before += sum(may)
    for layer in spared:
        grown[layer] += 1
    return Replacement(pruned, lost, list(spared.values()), torch.cat(ranks), grown, returning)
