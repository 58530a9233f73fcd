"""Deep rewiring, step by step: noise, signs, and which connections come for those that go.

Layers are looked at as one: values, signs and noise of all are one tensor, layer after layer, and positions go on
counting from layer to layer. So a step launches few kernels on a GPU and waits for it once, to read which weights have
changed their sign, as growth is drawn on the CPU.

Shape letters: A active connections of all layers together, K grown in one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dstrun.grow.criterion import Cost
from dstrun.method.dynamic.deepr import DeepR
from dstrun.method.dynamic.replacement import Replacement, choose
from dstrun.method.procedure import Change, Procedure, Setting, Update
from dstrun.method.upload import upload
from dstrun.selection import highest
from dstrun.stream import generator
from dstrun.topology import contains, inactive

NOISE_RATE = 0.01
"""eta in the noise on gradients: a constant in the code of Mostafa and Wang 2019."""


class DeepRewiring(Procedure):
    """Rewires after every step of the optimizer; ``DeepR`` says what its settings mean.

    Attributes:
        layers: those that are rewired; the others start dense.
        replaced: connections of each layer, dense ones too, that went and that came since the last report.
    """

    def __init__(self, setting: Setting, option: DeepR) -> None:
        self.setting, self.option = setting, option
        self.last, self.reports = option.last(setting.total_steps), set(option.reports(setting.total_steps))
        self.indices = [i for i, layer in enumerate(setting.layers) if layer.count < layer.topology.size]
        self.layers = [setting.layers[i] for i in self.indices]
        self.sizes = [layer.topology.size for layer in self.layers]
        self.starts = [0, *accumulate(self.sizes)][:-1]
        places = range(len(self.layers))
        self.pools = [list(places)] if setting.scope == "global" else [[place] for place in places]
        self._signs = torch.empty(0, dtype=torch.int8)
        if self.layers:
            self._signs = torch.where(self._values() < 0, -1, 1).to(torch.int8)
        self.replaced = [(0, 0) for _ in setting.layers]

    @property
    def signs(self) -> dict[int, Tensor]:
        """int8 of each layer, in the order of its positions: 1, -1, or 0 where a connection has not moved yet."""
        return dict(zip(self.indices, self._signs.split(self._counts()), strict=True))

    def updates_at(self, step: int) -> bool:
        """Say whether a step reports: every one rewires, up to the last."""
        return step in self.reports

    def after_backward(self, step: int) -> None:
        """Add the L1 term and noise to the gradients."""
        if self.option.noise == "gradients" and step <= self.last and self.layers:
            pull = self._pull(step, self.option.l1, math.sqrt(2 * NOISE_RATE * self._temperature(step)))
            for layer, part in zip(self.layers, pull.split(self._counts()), strict=True):
                layer.add_gradient(part)

    def after_step(self, step: int) -> Update | None:
        """Add the L1 term and noise to the weights, if not to the gradients; then rewire."""
        if step > self.last:
            return None
        if self.layers:
            values = self._values()
            if self.option.noise == "weights":
                rate = self.setting.optimizer.param_groups[0]["lr"]
                values -= self._pull(step, rate * self.option.l1, math.sqrt(2 * rate * self._temperature(step)))
                for layer, part in zip(self.layers, values.split(self._counts()), strict=True):
                    layer.set_values(part)
            self._replace(step, values)
        return self._report(step) if step in self.reports else None

    def state(self) -> dict[str, Any]:
        """Give the signs, and what has not been reported."""
        return {"signs": self.signs, "replaced": list(self.replaced)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's signs."""
        if self.layers:
            self._signs = torch.cat([state["signs"][i] for i in self.indices]).to(self._signs.device)
        self.replaced = [(pruned, grown) for pruned, grown in state["replaced"]]

    def _temperature(self, step: int) -> float:
        return self.option.temperature(step, self.setting.total_steps)

    def _counts(self) -> list[int]:
        return [layer.count for layer in self.layers]

    def _values(self) -> Tensor:
        return torch.cat([layer.values() for layer in self.layers])

    def _pull(self, step: int, l1: float, spread: float) -> Tensor:
        """Give s l1 + spread nu: (A,), nu drawn on the CPU, for each layer by itself."""
        pull = l1 * self._signs.to(self.layers[0].weight.dtype)
        if spread:
            noise = torch.empty(pull.shape)
            for index, part in zip(self.indices, noise.split(self._counts()), strict=True):
                part.normal_(generator=generator(self.setting.seed, "noise", step, index))
            pull += spread * upload(noise, pull.device).to(pull.dtype)
        return pull

    def _replace(self, step: int, values: Tensor) -> None:
        """Prune what has the wrong sign, and grow as many at random; one that first moves gets its sign."""
        if self.option.signs == "first":
            self._signs = torch.where(self._signs == 0, values.sign().to(torch.int8), self._signs)
        sizes = values * self._signs
        wrong = sizes < 0
        pruned, counts = np.flatnonzero(wrong.cpu().numpy()), self._counts()
        if not pruned.size:
            return
        lost = np.diff(np.searchsorted(pruned, np.cumsum(counts)), prepend=0).tolist()
        free = [size - count for size, count in zip(self.sizes, counts, strict=True)]
        spared = self._spared(sizes, counts, lost)
        draws = partial(generator, self.setting.seed, "grow", step)
        self._rewire(step, wrong, choose(pruned, lost, spared, free, self.pools, draws))

    def _spared(self, sizes: Tensor, counts: Sequence[int], lost: Sequence[int]) -> dict[int, int]:
        """Name the connection that starts again at 0 in a layer that would lose all to others: the least wrong one."""
        spared = {}
        for layer in self.pools[0] if len(self.pools[0]) > 1 else ():
            if lost[layer] == counts[layer] > 0:
                first = sum(counts[:layer])
                spared[layer] = first + int(highest(sizes[first : first + counts[layer]], 1))
        return spared

    def _rewire(self, step: int, wrong: Tensor, new: Replacement) -> None:
        """Rewire the layers, and keep signs in the order of their positions."""
        parts = [self._fresh(step, index, count) for index, count in zip(self.indices, new.grown, strict=True) if count]
        host = [torch.from_numpy(new.pruned), new.ranks, torch.cat(parts), torch.tensor(new.spared, dtype=torch.int64)]
        sent = upload(torch.cat(host), wrong.device).split([part.numel() for part in host])
        active = torch.cat(_shifted([layer.topology.positions for layer in self.layers], self.starts))
        blocked = new.blocked(active.numel())
        out = active[sent[0]]
        come = inactive(active if blocked is None else active[upload(torch.from_numpy(blocked), wrong.device)], sent[1])
        if new.spared:
            come = torch.cat([come, active[sent[3]]]).sort().values
        order = torch.cat([active.masked_fill(wrong, sum(self.sizes)), come]).argsort()[: active.numel()]
        self._signs = torch.cat([self._signs, sent[2].to(torch.int8)])[order]
        ends = [-start for start in self.starts]
        outs, news = (_shifted(p.split(n), ends) for p, n in ((out, new.lost), (come, new.grown)))
        for place, (layer, old, fresh) in enumerate(zip(self.layers, outs, news, strict=True)):
            if old.numel() or fresh.numel():
                layer.rewire(old, fresh)
                back = int(contains(old, fresh).sum()) if new.spared or place in new.returning else 0
                pruned, grown = self.replaced[self.indices[place]]
                self.replaced[self.indices[place]] = pruned + old.numel() - back, grown + fresh.numel() - back

    def _fresh(self, step: int, index: int, count: int) -> Tensor:
        """Give the signs of grown connections: (K,) int64."""
        if self.option.signs == "first":
            return torch.zeros(count, dtype=torch.int64)
        return 2 * torch.randint(2, (count,), generator=generator(self.setting.seed, "sign", step, index)) - 1

    def _report(self, step: int) -> Update:
        """Tell what was replaced since the last report."""
        layers = self.setting.layers
        changes = [
            Change(layer.name, layer.count, pruned, grown, 0, layer.explored())
            for layer, (pruned, grown) in zip(layers, self.replaced, strict=True)
        ]
        self.replaced = [(0, 0) for _ in layers]
        return Update(step, Cost.NONE, False, 0, changes)


def _shifted(parts: Sequence[Tensor], by: Sequence[int]) -> list[Tensor]:
    """Add a number to all of each tensor, in one kernel."""
    each: Any = torch
    return each._foreach_add(parts, by)
