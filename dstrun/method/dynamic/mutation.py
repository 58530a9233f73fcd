"""Prune the least important, grow at random: the procedures of ``MEST``, which says what they do."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dstrun.grow.random import Random
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import SparseLayer
from dstrun.layer.selection import lowest
from dstrun.layer.topology import contains
from dstrun.method.dynamic.mest import mutating, update_steps
from dstrun.method.procedure import Change, Procedure, Setting, Update
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched

GROW: Any = Random()


class Mutation(Procedure):
    """Prunes below the budget and grows back to it (EM), after the optimizer's step."""

    plain: ClassVar[bool] = True

    soft: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        assert setting.counts is not None
        self.setting, self.counts = setting, setting.counts
        self.steps = set(update_steps(setting.schedule, setting.total_steps, self.soft))

    def updates_at(self, step: int) -> bool:
        """Return whether there is an update at a step."""
        return step in self.steps

    def after_step(self, step: int) -> Update | None:
        """Prune and grow in each layer."""
        return self._update(step) if step in self.steps else None

    def _update(self, step: int) -> Update:
        worst = fetched([self._worst(step, index, layer) for index, layer in enumerate(self.setting.layers)])
        changes = [self._mutate(step, index, out) for index, out in enumerate(worst)]
        return Update(step, Cost.NONE, False, 0, changes)

    def _mutating(self, step: int, index: int) -> int:
        """Count the connections of a layer that go and come."""
        setting, size = self.setting, self.setting.layers[index].topology.size
        return mutating(setting.schedule, step, setting.total_steps, self.counts[index], size)

    def _worst(self, step: int, index: int, layer: SparseLayer) -> Tensor:
        """Return which of a layer's active connections go, by their index: (K,)."""
        gone = layer.count - self.counts[index] + (0 if self.soft else self._mutating(step, index))
        if not gone:
            return torch.empty(0, dtype=torch.int64)
        return lowest(self.setting.prune.score(layer, generator(self.setting.seed, "prune", step, index)), gone)

    def _mutate(self, step: int, index: int, worst: Tensor) -> Change:
        """Prune one layer, then grow among all that are inactive: what was just pruned may come back, at 0."""
        setting, layer, mutate = self.setting, self.setting.layers[index], self._mutating(step, index)
        before = layer.topology.positions
        if worst.numel():
            layer.rewire(before[worst], before[:0])
        found = layer.propose(GROW, None, mutate, generator(setting.seed, "grow", step, index))
        layer.rewire(before[:0], found.positions)
        after = layer.topology.positions
        went, came = int((~contains(after, before)).sum()), int((~contains(before, after)).sum())
        return Change(layer.name, layer.count, went, came, found.drawn, layer.explored())


class SoftlyBound(Mutation):
    """Prunes to the budget and grows beyond it until the next update (EM&S), from the first step on."""

    soft: ClassVar[bool] = True
    prepares: ClassVar[bool] = True

    def prepare(self) -> Update:
        """Grow to the soft bound."""
        return self._update(0)
