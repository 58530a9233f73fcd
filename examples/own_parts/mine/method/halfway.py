"""Prune once, in the middle of training: a method, which is written for dstrun."""

from typing import Annotated, ClassVar

from dstrun.config.option import Within, option
from dstrun.layer.criterion import Cost
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure
from dstrun.method.pruning import keep_best
from dstrun.method.update import ProductCounts, Update


@option
class Halfway(Method):
    """Train all connections, keep the largest once ``at`` of the steps are done, and train on."""

    at: Annotated[float, Within(0, 1, low_open=True)] = 0.5

    why: ClassVar[str] = "which prunes by magnitude"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which starts dense"

    def procedure(self, setting):
        """Return what is done around a step."""
        return Once(setting, self.step_of(setting.total_steps))

    def planned_phases(self, sizes, counts, schedule, total):
        """Yield for how many steps which connections take part, by which plans count FLOPs."""
        before = self.step_of(total)
        yield before, ProductCounts.of(sizes)
        yield total - before, ProductCounts.of(counts)

    def step_of(self, total):
        """Return after which step to prune."""
        return max(1, round(self.at * total))


class Once(Procedure):
    """Prune after one step."""

    plain = True

    def __init__(self, setting, step):
        self.setting, self.step = setting, step

    def updates_at(self, step):
        """Return whether the topology changes in a step."""
        return step == self.step

    def after_step(self, step):
        """Prune, if this is the step."""
        if not self.updates_at(step):
            return None
        given = self.setting
        scores = [layer.values().abs() for layer in given.layers]
        changes = keep_best(given.layers, scores, given.counts, given.budget, given.strict)
        return Update(step, Cost.NONE, False, 0, changes)
