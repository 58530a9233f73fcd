"""Gradual magnitude pruning (Zhu and Gupta 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.layer.criterion import Cost
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.pruning import keep_best
from dstrun.method.update import ProductCounts, Update
from dstrun.system.stream import generator


@option
class GMP(Method):
    """Start from every connection and prune those of lowest score until sparsity s_f is reached at t_end.

    s_t = s_f (1 - a_t) with the schedule's a_t, which falls from ``schedule.fraction`` to 0: with ``schedule=cubic``
    and fraction 1 that is s_f - s_f (1 - (t - t_begin) / (t_end - t_begin))^3, the paper's equation 1 from s_i = 0.
    With ``schedule=cosine`` it is the curve of Heddes et al. 2024. What is pruned stays so.

    With ``scope=layer`` every layer goes to the count of the allocation along the same curve; with ``scope=global`` all
    layers are ranked together.
    """

    parts: ClassVar[tuple[str, ...]] = ("prune", "schedule")
    why: ClassVar[str] = "which only ever prunes"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which starts dense"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")

    def procedure(self, setting: Setting) -> Procedure:
        """Start pruning."""
        return Thinning(setting)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the active connections between updates."""
        before, active = 0, list(sizes)
        for step in update_steps(schedule, total):
            yield step - before, ProductCounts.of(active)
            share = _above(schedule, step, total)
            before, active = step, [_kept(n, c, share) for n, c in zip(sizes, counts, strict=True)]
        yield total - before, ProductCounts.of(active)


def update_steps(schedule: Any, total: int) -> list[int]:
    """List the steps that prune: the schedule's and t_end, where the target is reached exactly."""
    last = max(1, min(total, schedule.last(total)))
    return sorted({*(step for step in schedule.steps(total) if step <= last), last})


def remaining(size: int, target: int, schedule: Any, step: int, total: int) -> int:
    """Count the connections left of ``size`` at a step on the way to ``target``, which is met at t_end."""
    return _kept(size, target, _above(schedule, step, total))


def _above(schedule: Any, step: int, total: int) -> float:
    """Return the share of what is to be pruned that is left after a step: none at t_end."""
    return 0.0 if step >= schedule.last(total) else min(1.0, schedule.fraction_at(step, total))


def _kept(size: int, target: int, share: float) -> int:
    return target + round((size - target) * share)


class Thinning(Procedure):
    """Prunes after the optimizer's step at the steps of the schedule; ``GMP`` says to how many."""

    plain: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.steps = set(update_steps(setting.schedule, setting.total_steps))
        self.sizes = [layer.topology.size for layer in setting.layers]

    def updates_at(self, step: int) -> bool:
        """Return whether the schedule has an update at a step."""
        return step in self.steps

    def after_step(self, step: int) -> Update | None:
        """Prune to what the schedule leaves at a step."""
        if step not in self.steps:
            return None
        setting = self.setting
        scores = [
            setting.prune.score(layer, generator(setting.seed, "prune", step, index))
            for index, layer in enumerate(setting.layers)
        ]
        counts = setting.counts and [self._left(n, c, step) for n, c in zip(self.sizes, setting.counts, strict=True)]
        budget = self._left(sum(self.sizes), setting.budget, step)
        return Update(step, Cost.NONE, False, 0, keep_best(setting.layers, scores, counts, budget, setting.strict))

    def _left(self, size: int, target: int, step: int) -> int:
        return remaining(size, target, self.setting.schedule, step, self.setting.total_steps)
