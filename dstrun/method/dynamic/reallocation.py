"""The updates of dynamic sparse reparameterization: what one threshold prunes is shared out among the layers.

Shape letters: A active connections of a layer, K pruned in all layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor

from dstrun.layer.criterion import Cost
from dstrun.layer.interface import SparseLayer
from dstrun.layer.selection import highest
from dstrun.layer.topology import contains
from dstrun.method.dynamic.drawing import barred, draw
from dstrun.method.dynamic.dsr import DSR
from dstrun.method.procedure import Change, Procedure, Setting, Update
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched


class Reallocation(Procedure):
    """Prunes and grows after the optimizer's step; ``DSR`` says what its settings mean."""

    def __init__(self, setting: Setting, option: DSR) -> None:
        self.setting, self.option = setting, option
        self.threshold = option.threshold
        self.steps = set(option.steps(setting.total_steps))
        self.indices = [i for i, layer in enumerate(setting.layers) if layer.count < layer.topology.size]

    def updates_at(self, step: int) -> bool:
        """Return whether connections are reallocated at a step."""
        return step in self.steps

    def after_step(self, step: int) -> Update | None:
        """Prune below the threshold, regrow, and move the threshold."""
        if step not in self.steps:
            return None
        layers = [self.setting.layers[i] for i in self.indices]
        active = [layer.topology.positions for layer in layers]
        small = fetched([below(layer, self.threshold) for layer in layers])
        pruned = [positions[mask] for positions, mask in zip(active, small, strict=True)]
        count = sum(p.numel() for p in pruned)
        changes = dict(zip(self.indices, self._reallocate(step, layers, active, pruned, count), strict=True))
        self._adjust(count, sum(p.numel() for p in active))
        rest = [Change(x.name, x.count, 0, 0, 0, x.explored()) for x in self.setting.layers]
        return Update(step, Cost.NONE, False, 0, [changes.get(i, unchanged) for i, unchanged in enumerate(rest)])

    def state(self) -> dict[str, Any]:
        """Return the threshold."""
        return {"threshold": self.threshold}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's threshold."""
        self.threshold = state["threshold"]

    def _reallocate(
        self, step: int, layers: Sequence[SparseLayer], active: list[Tensor], pruned: list[Tensor], count: int
    ) -> list[Change]:
        """Rewire every layer: what was pruned goes, and as many of all layers together come."""
        sizes = [layer.topology.size for layer in layers]
        blocked = barred(active, pruned, sizes, count)
        survivors = [a.numel() - p.numel() for a, p in zip(active, pruned, strict=True)]
        shares = share_out(count, survivors, [n - b.numel() for n, b in zip(sizes, blocked, strict=True)])
        changes = []
        for place, (layer, share, out) in enumerate(zip(layers, shares, pruned, strict=True)):
            draws = generator(self.setting.seed, "grow", step, self.indices[place])
            (new,) = draw([sizes[place]], [blocked[place]], share, draws)
            layer.rewire(out, new)
            back = int(contains(out, new).sum())
            gone, come = out.numel() - back, new.numel() - back
            changes.append(Change(layer.name, layer.count, gone, come, 0, layer.explored()))
        return changes

    def _adjust(self, count: int, active: int) -> None:
        wanted = self.option.wanted(active)
        if count > (1 + self.option.tolerance) * wanted:
            self.threshold /= 2
        elif count < (1 - self.option.tolerance) * wanted:
            self.threshold *= 2


def below(layer: SparseLayer, threshold: float) -> Tensor:
    """Return which weights are smaller than the threshold, (A,) bool; never the largest."""
    magnitudes = layer.values().abs()
    return (magnitudes < threshold).index_fill_(0, highest(magnitudes, 1), False)


def share_out(count: int, weights: Sequence[int], room: Sequence[int]) -> list[int]:
    """Share a number out in proportion, exactly, with no share above its room.

    What does not fit goes to the others in proportion; shares are then rounded by largest remainder, ties to the
    earlier.

    Args:
        count: shared out, at most the sum of ``room``.
        weights: what a share is proportional to, positive.
        room: the most that each can take.
    """
    shares = [0] * len(room)
    open_ = list(range(len(room)))
    while True:
        total = sum(weights[i] for i in open_)
        exact = {i: Fraction(count * weights[i], total) for i in open_}
        full = [i for i in open_ if exact[i] >= room[i]]
        if not full:
            break
        for i in full:
            shares[i] = room[i]
            count -= room[i]
        open_ = [i for i in open_ if i not in full]
    for i in open_:
        shares[i] = math.floor(exact[i])
    by_remainder = sorted(open_, key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: count - sum(shares[i] for i in open_)]:
        shares[i] += 1
    return shares
