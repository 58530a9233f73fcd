"""Score every connection of the untrained network, keep the best, then train these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dstrun.layer.criterion import Cost
from dstrun.method.procedure import Procedure, Setting, Update
from dstrun.method.pruning import keep_best
from dstrun.method.statistics import frozen_statistics

if TYPE_CHECKING:
    from dstrun.method.at_init.once import PruneOnSamples

Scores = tuple[list[Tensor], int]
"""(N,) of every layer, and how many samples were passed forward and backward for them."""


class Scoring(Procedure):
    """Prunes once, before the first step.

    Args:
        setting: of the run; its layers have every connection.
        score: gives the scores of every layer's connections; the highest are kept.
    """

    prepares: ClassVar[bool] = True
    plain: ClassVar[bool] = True

    def __init__(self, setting: Setting, score: Callable[[Setting], Scores]) -> None:
        self.setting, self.score = setting, score

    def prepare(self) -> Update:
        """Score and prune."""
        setting = self.setting
        scores, samples = self.score(setting)
        changes = keep_best(setting.layers, scores, setting.counts, setting.budget, setting.strict)
        return Update(0, Cost.DENSE_GRAD if samples else Cost.NONE, False, samples, changes)


@contextmanager
def scoring_pass(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch but leave the running statistics as they are; drop nothing, so that no chance enters."""
    dropouts = [module for module in model.modules() if isinstance(module, _DropoutNd) and module.training]
    for dropout in dropouts:
        dropout.training = False
    try:
        with frozen_statistics(model):
            yield
    finally:
        for dropout in dropouts:
            dropout.training = True


def parts(method: PruneOnSamples, setting: Setting) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Draw the samples that a method scores on, the same at every call.

    Yields:
        images and labels of a part, every class in equal shares as far as it goes, and which share of all samples they
        are: sums of so weighted losses are the mean over all.
    """
    for index in range(method.rounds):
        x, y = setting.samples(index, method.samples_per_class)
        for first in range(min(method.splits, len(y))):
            part = y[first :: method.splits]
            yield x[first :: method.splits], part, len(part) / len(y) / method.rounds
