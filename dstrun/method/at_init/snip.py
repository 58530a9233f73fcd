"""SNIP: connection sensitivity of the untrained network (Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.method.procedure import Method, Procedure, Setting
from dstrun.option import AtLeast, option

if TYPE_CHECKING:
    from dstrun.layer import DenseLayer
    from dstrun.method.at_init.scoring import Scores


@option
class SNIP(Method):
    """Keep the connections of largest |w dL/dw|, the loss's sensitivity to a factor c = 1 on each (equation 5).

    One batch of ``samples_per_class`` training images a class, batch normalization by its statistics, running
    statistics left alone. ``scope=global`` ranks all layers together, as in the paper (its normalisation by the sum
    changes no order), and may empty a layer; ``scope=layer`` keeps the allocation's counts, as Evci et al. 2020 do.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which prunes once, before training"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which scores every connection of the dense network"

    def procedure(self, setting: Setting) -> Procedure:
        """Score and prune before the first step."""
        from dstrun.method.at_init.scoring import Scoring

        return Scoring(setting, self._score)

    def scored_samples(self, classes: int) -> int:
        """Count the batch."""
        return self.samples_per_class * classes

    def _score(self, setting: Setting, layers: Sequence[DenseLayer]) -> Scores:
        from dstrun.method.statistics import frozen_statistics

        x, y = setting.samples(0, self.samples_per_class)
        with frozen_statistics(setting.model):
            setting.loss(setting.model(x), y).backward()
        return [(layer.values() * layer.grad()).abs() for layer in layers], len(y)
