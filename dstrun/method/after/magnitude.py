"""Magnitude pruning of a trained network (Han et al. 2015, Renda et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dstrun.config.option import option
from dstrun.method.after.retrained import Retrained

if TYPE_CHECKING:
    from dstrun.method.repeated import Score


@option
class MagnitudePruning(Retrained):
    """Train densely, then ``rounds`` times: prune the connections of lowest |w|, and retrain.

    ``prune=random`` is the control: the same course with connections drawn by lot.
    """

    parts: ClassVar[tuple[str, ...]] = ("prune",)
    why: ClassVar[str] = "which prunes between trainings"

    def score(self) -> Score:
        """Score by ``prune=``."""
        from dstrun.method.repeated import by_criterion

        return by_criterion
