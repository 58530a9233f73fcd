"""Rounds of pruning and training, after a dense training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from dstrun.layer.criterion import Cost
from dstrun.layer.interface import SparseLayer
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.pruning import keep_best
from dstrun.method.rounds import Rounds, survivors
from dstrun.method.update import LayerUpdate, Update
from dstrun.system.stream import generator

if TYPE_CHECKING:
    from torch import Tensor

Score: TypeAlias = "Callable[[Setting, int], tuple[list[Tensor], int]]"
"""Scores, (A,) of each layer at a step, and how many samples were passed forward and backward for them."""


class Repeated(Procedure):
    """Prunes before the first step of every round; each replays the tail of the learning rate's schedule.

    Args:
        method: says how many rounds there are, how long, and how far each prunes.
        setting: of the run; its layers have every connection.
        score: of active connections; the lowest go.
    """

    def __init__(self, method: Rounds, setting: Setting, score: Score) -> None:
        self.setting, self.score = setting, score
        self.shares = method.shares(setting.sparsity)
        self.dense = setting.nominal_steps
        self.length = method.round_epochs(self.dense // setting.steps_per_epoch) * setting.steps_per_epoch
        self.sizes = [layer.topology.size for layer in setting.layers]

    def updates_at(self, step: int) -> bool:
        """Return whether a round starts with a step."""
        done = step - 1 - self.dense
        return done >= 0 and done % self.length == 0 and done // self.length < len(self.shares)

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Replay the tail of the schedule of one training, as long as a round."""
        if step < self.dense:
            return step, self.dense
        return self.dense - self.length + (step - self.dense) % self.length, self.dense

    def before_step(self, step: int) -> Update | None:
        """Score and prune, where a round starts."""
        if not self.updates_at(step):
            return None
        scores, samples = self.score(self.setting, step)
        return Update(step, Cost.NONE, False, samples, self.prune(step, scores))

    def prune(self, step: int, scores: Sequence[Tensor]) -> list[LayerUpdate]:
        """Keep what the round leaves: in each layer, or among all."""
        setting, share = self.setting, self.shares[(step - 1 - self.dense) // self.length]
        counts = setting.counts and [survivors(n, c, share) for n, c in zip(self.sizes, setting.counts, strict=True)]
        budget = survivors(sum(self.sizes), setting.budget, share)
        return keep_best(setting.layers, scores, counts, budget, setting.strict)


def by_criterion(setting: Setting, step: int) -> tuple[list[Tensor], int]:
    """Score by ``prune=``, which takes no samples."""
    layers: Sequence[SparseLayer] = setting.layers
    return [setting.prune.score(x, generator(setting.seed, "prune", step, i)) for i, x in enumerate(layers)], 0
