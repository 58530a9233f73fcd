"""Fewer connections at every update: those of lowest score go."""

from __future__ import annotations

from typing import ClassVar

from dstrun.layer.criterion import Cost
from dstrun.method.gradual.gmp import remaining, update_steps
from dstrun.method.procedure import Procedure, Setting, Update
from dstrun.method.pruning import keep_best
from dstrun.system.stream import generator


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
