"""Score every connection of the untrained network, keep the best, then train these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from dstrun.grow.criterion import Cost
from dstrun.layer import DenseLayer
from dstrun.method.procedure import Change, Procedure, Setting, Update
from dstrun.method.pruning import keep_best

Scores = tuple[list[Tensor], int]
"""(N,) of every layer, and how many samples were passed forward and backward for them."""


class Scoring(Procedure):
    """Prunes once, before the first step.

    Args:
        setting: of the run; its layers have every connection.
        score: gives the scores of every layer's connections; the highest are kept.
    """

    prepares: ClassVar[bool] = True

    def __init__(self, setting: Setting, score: Callable[[Setting, Sequence[DenseLayer]], Scores]) -> None:
        self.setting, self.score = setting, score

    def prepare(self) -> Update:
        """Score and prune."""
        setting = self.setting
        scores, samples = self.score(setting, setting.layers)  # type: ignore[arg-type]
        changes: list[Change] = keep_best(setting.layers, scores, setting.counts, setting.budget, setting.strict)
        return Update(0, Cost.DENSE_GRAD, False, samples, changes)
