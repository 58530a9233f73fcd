"""Deep rewiring, step by step: noise, signs, and which connections come for those that go.

Shape letters: A active connections of a layer, K grown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dstrun.grow.criterion import Cost
from dstrun.method.dynamic.deepr import DeepR
from dstrun.method.dynamic.drawing import barred, draw
from dstrun.method.procedure import Change, Procedure, Setting, Update
from dstrun.selection import highest
from dstrun.stream import generator
from dstrun.topology import contains, without

NOISE_RATE = 0.01
"""eta in the noise on gradients: a constant in the code of Mostafa and Wang 2019."""


class DeepRewiring(Procedure):
    """Rewires after every step of the optimizer; ``DeepR`` says what its settings mean.

    Attributes:
        signs: (A,) int8 of each layer, in the order of its positions: 1, -1, or 0 where a connection has not moved yet.
        replaced: connections of each layer that went and that came since the last report.
    """

    def __init__(self, setting: Setting, option: DeepR) -> None:
        self.setting, self.option, self.layers = setting, option, setting.layers
        self.last, self.reports = option.last(setting.total_steps), set(option.reports(setting.total_steps))
        rewired = [i for i, layer in enumerate(self.layers) if layer.count < layer.topology.size]
        self.pools = [rewired] if setting.scope == "global" else [[i] for i in rewired]
        self.signs = {i: torch.where(self.layers[i].values() < 0, -1, 1).to(torch.int8) for i in rewired}
        self.replaced = [(0, 0) for _ in self.layers]

    def updates_at(self, step: int) -> bool:
        """Say whether a step reports: every one rewires, up to the last."""
        return step in self.reports

    def after_backward(self, step: int) -> None:
        """Add the L1 term and noise to the gradients."""
        if self.option.noise == "gradients" and step <= self.last:
            spread = math.sqrt(2 * NOISE_RATE * self._temperature(step))
            for index in self.signs:
                self.layers[index].add_gradient(self._pull(step, index, self.option.l1, spread))

    def after_step(self, step: int) -> Update | None:
        """Add the L1 term and noise to the weights, if not to the gradients; then rewire."""
        if step > self.last:
            return None
        if self.option.noise == "weights":
            rate = self.setting.optimizer.param_groups[0]["lr"]
            spread = math.sqrt(2 * rate * self._temperature(step))
            for index in self.signs:
                layer = self.layers[index]
                layer.set_values(layer.values() - self._pull(step, index, rate * self.option.l1, spread))
        for place, pool in enumerate(self.pools):
            self._replace(step, place, pool)
        return self._report(step) if step in self.reports else None

    def state(self) -> dict[str, Any]:
        """Give the signs, and what has not been reported."""
        return {"signs": dict(self.signs), "replaced": list(self.replaced)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's signs."""
        self.signs = {i: signs.to(self.signs[i].device) for i, signs in state["signs"].items()}
        self.replaced = [(pruned, grown) for pruned, grown in state["replaced"]]

    def _temperature(self, step: int) -> float:
        return self.option.temperature(step, self.setting.total_steps)

    def _pull(self, step: int, index: int, l1: float, spread: float) -> Tensor:
        """Give s l1 + spread nu of a layer's connections: (A,), nu drawn on the CPU in the order of positions."""
        values = self.layers[index].values()
        pull = l1 * self.signs[index].to(values.dtype)
        if spread:
            draws = generator(self.setting.seed, "noise", step, index)
            pull += spread * torch.randn(values.numel(), generator=draws).to(pull)
        return pull

    def _replace(self, step: int, place: int, pool: Sequence[int]) -> None:
        """Prune what has the wrong sign in the layers of a pool, and grow as many at random."""
        wrong = [self._wrong(index) for index in pool]
        count = sum(int(w.sum()) for w in wrong)
        if not count:
            return
        active = [self.layers[index].topology.positions for index in pool]
        pruned = [a[w] for a, w in zip(active, wrong, strict=True)]
        returned = [
            self._spared(i, a, w) if len(pool) > 1 else a[:0] for i, a, w in zip(pool, active, wrong, strict=True)
        ]
        count -= sum(r.numel() for r in returned)
        sizes = [self.layers[index].topology.size for index in pool]
        going = [without(p, r) for p, r in zip(pruned, returned, strict=True)]
        blocked = barred(active, going, sizes, count)
        drawn = draw(sizes, blocked, count, generator(self.setting.seed, "grow", step, place))
        for index, old, out, new, back in zip(pool, active, pruned, drawn, returned, strict=True):
            self._rewire(step, index, old, out, torch.cat([new, back]).sort().values)

    def _wrong(self, index: int) -> Tensor:
        """Say which weights of a layer have changed their sign, (A,) bool; one that first moves gets its sign."""
        values, signs = self.layers[index].values(), self.signs[index]
        self.signs[index] = torch.where(signs == 0, values.sign().to(torch.int8), signs)
        return values * signs < 0

    def _spared(self, index: int, active: Tensor, wrong: Tensor) -> Tensor:
        """Give the position that starts again at 0 where a layer would lose all to others: the least wrong one."""
        if self.setting.scope == "layer" or not wrong.all():
            return active[:0]
        return active[highest(self.layers[index].values() * self.signs[index], 1)]

    def _rewire(self, step: int, index: int, old: Tensor, out: Tensor, new: Tensor) -> None:
        """Rewire one layer, signs along with it; ``old``, ``out`` and ``new`` are sorted positions."""
        if not out.numel() and not new.numel():
            return
        stays = ~contains(out, old)
        kept = old[stays]
        places = torch.searchsorted(kept, new) + torch.arange(new.numel(), device=new.device)
        signs = self.signs[index].new_empty(kept.numel() + new.numel())
        others = torch.ones_like(signs, dtype=torch.bool).index_fill_(0, places, False)
        signs[others], signs[places] = self.signs[index][stays], self._fresh(step, index, new.numel()).to(signs)
        self.layers[index].rewire(out, new)
        self.signs[index] = signs
        back = int(contains(out, new).sum())
        pruned, grown = self.replaced[index]
        self.replaced[index] = (pruned + out.numel() - back, grown + new.numel() - back)

    def _fresh(self, step: int, index: int, count: int) -> Tensor:
        """Give the signs of grown connections: (K,)."""
        if self.option.signs == "first":
            return torch.zeros(count)
        return 2 * torch.randint(2, (count,), generator=generator(self.setting.seed, "sign", step, index)) - 1

    def _report(self, step: int) -> Update:
        """Tell what was replaced since the last report."""
        changes = [
            Change(layer.name, layer.count, pruned, grown, 0, layer.explored())
            for layer, (pruned, grown) in zip(self.layers, self.replaced, strict=True)
        ]
        self.replaced = [(0, 0) for _ in self.layers]
        return Update(step, Cost.NONE, False, 0, changes)
