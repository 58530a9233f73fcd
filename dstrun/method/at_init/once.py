"""Shared by methods that score every connection of the untrained network and keep the highest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from dstrun.config.option import AtLeast, option
from dstrun.layer.criterion import Cost
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.pruning import keep_best
from dstrun.method.statistics import frozen_statistics, switched_off
from dstrun.method.update import Update
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

Scores: TypeAlias = "tuple[list[Tensor], int]"
"""(N,) of every layer, and how many samples were passed forward and backward for them."""


@option
class PruneOnce(Method):
    """Score every connection of the initialized network, keep the highest and train them."""

    why: ClassVar[str] = "which prunes once, before training"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which scores every connection of the dense network"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")

    def procedure(self, setting: Setting) -> Procedure:
        """Score and prune before the first step."""
        return Scoring(setting, self.score)

    def score(self, setting: Setting) -> Scores:
        """Return the scores of every layer's connections, of which the highest are kept; leave the network as it is."""
        raise NotImplementedError


@option
class PruneOnSamples(PruneOnce):
    """Score on training samples.

    Attributes:
        samples_per_class: of every class, in one batch.
        rounds: number of such batches, drawn independently.
        splits: number of parts in which a batch is passed, to save memory; batch statistics are per part.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10
    rounds: Annotated[int, AtLeast(1)] = 1
    splits: Annotated[int, AtLeast(1)] = 1

    def scored_samples(self, classes: int) -> int:
        """Count the samples, each passed once."""
        return self.samples_per_class * classes * self.rounds


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
    kind = torch.nn.modules.dropout._DropoutNd
    dropouts = (module for module in model.modules() if isinstance(module, kind))
    with switched_off(dropouts, "training"), frozen_statistics(model):
        yield


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
