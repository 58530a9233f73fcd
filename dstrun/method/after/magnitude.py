"""Magnitude pruning of a trained network (Han et al. 2015, Renda et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

from dstrun.config.option import option
from dstrun.method.after.retrained import Retrained
from dstrun.method.repeated import Score, by_criterion


@option
class MagnitudePruning(Retrained):
    """Train densely, then ``rounds`` times: prune the connections of lowest |w|, and retrain.

    ``prune=random`` is the control: the same procedure with connections pruned at random.
    """

    parts: ClassVar[tuple[str, ...]] = ("prune",)
    why: ClassVar[str] = "which prunes between trainings"

    def score(self) -> Score:
        """Score by ``prune=``."""
        return by_criterion
