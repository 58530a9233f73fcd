"""MEST: elastic mutation, and the soft memory bound (Yuan et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.config.option import option
from dstrun.grow.random import Random
from dstrun.layer.criterion import Cost
from dstrun.layer.growth import GrowthRequest, propose
from dstrun.layer.interface import SparseLayer
from dstrun.layer.selection import lowest
from dstrun.method.dynamic.exchange import exchanged
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.update import LayerUpdate, ProductCounts, Update
from dstrun.schedule import update_steps
from dstrun.system.lazy import torch
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched

if TYPE_CHECKING:
    from torch import Tensor

GROW: Any = Random()


@option
class MEST(Method):
    """Mutate m = a_t C connections of each layer at an update, C its number of connections.

    Elastic mutation (EM) prunes to C - m and grows m at random at once. With ``soft_bound`` (EM&S) a layer has C + m
    connections between updates: an update prunes to C, and grows m that are trained before they are judged; from t_end
    on it has C.
    """

    soft_bound: bool = False

    parts: ClassVar[tuple[str, ...]] = ("prune", "schedule")
    why: ClassVar[str] = "which grows at random in each layer"
    grows_at_zero: ClassVar[bool] = True

    def procedure(self, setting: Setting) -> Procedure:
        """Start mutating."""
        return (SoftlyBound if self.soft_bound else Mutation)(setting)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the active connections between updates."""

        def active(step: int) -> list[int]:
            soft = [mutating(schedule, step, total, c, n) for c, n in zip(counts, sizes, strict=True)]
            return [c + m if self.soft_bound else c for c, m in zip(counts, soft, strict=True)]

        before = 0
        for step in mutation_steps(schedule, total, self.soft_bound):
            yield step - before, ProductCounts.of(active(before))
            before = step
        yield total - before, ProductCounts.of(active(before))


def mutation_steps(schedule: Any, total: int, soft_bound: bool) -> list[int]:
    """List the steps that mutate, and with a soft bound t_end, where the target is reached."""
    last = schedule.last(total)
    steps = {step for step in update_steps(schedule, total) if step < last}
    return sorted(steps | {last} if soft_bound and 0 < last <= total else steps)


def mutating(schedule: Any, step: int, total: int, count: int, size: int) -> int:
    """Count the connections that mutate at a step in a layer of ``size`` with a budget of ``count``: m."""
    fraction = schedule.fraction_at(step, total) if step < schedule.last(total) else 0.0
    return min(round(fraction * count), count - 1, size - count)


class Mutation(Procedure):
    """Prunes below the budget and grows back to it (EM), after the optimizer's step."""

    plain: ClassVar[bool] = True

    soft: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        assert setting.counts is not None
        self.setting, self.counts = setting, setting.counts
        self.steps = set(mutation_steps(setting.schedule, setting.total_steps, self.soft))

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

    def _mutate(self, step: int, index: int, worst: Tensor) -> LayerUpdate:
        """Prune one layer, then grow among all that are inactive: what was just pruned may come back, at 0."""
        setting, layer, mutate = self.setting, self.setting.layers[index], self._mutating(step, index)
        before = layer.topology.positions
        pruned = before[worst].sort().values
        if worst.numel():
            layer.rewire(pruned, before[:0])
        found = propose(layer, GrowthRequest(GROW, mutate, generator(setting.seed, "grow", step, index)))
        layer.rewire(before[:0], found.positions)
        return LayerUpdate.of(layer, *exchanged(pruned, found.positions.cpu()), found.drawn)


class SoftlyBound(Mutation):
    """Prunes to the budget and grows beyond it until the next update (EM&S), from the first step on."""

    soft: ClassVar[bool] = True
    prepares: ClassVar[bool] = True

    def prepare(self) -> Update:
        """Grow to the soft bound."""
        return self._update(0)
