"""Optimal Brain Damage with the empirical Fisher diagonal (LeCun et al. 1989, Theis et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.method.after.retrained import Retrained
from dstrun.method.procedure import Setting
from dstrun.option import AtLeast, option

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.method.repeated import Score


@option
class Fisher(Retrained):
    """Prune the connections of lowest 1/2 F w^2, the second-order change of the loss without them at its minimum.

    F is the diagonal of the empirical Fisher matrix, which stands for the Hessian's: the mean over images of the
    squared gradient of each. ``samples_per_class`` training images of every class, drawn anew in every round, with
    batch normalization by its running statistics and without dropout.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which scores by gradients and prunes between trainings"

    def score(self) -> Score:
        """Score by the squared gradients of single images."""
        return self._score

    def update_samples(self, classes: int) -> int:
        """Count the images of a round."""
        return self.samples_per_class * classes

    def _score(self, setting: Setting, step: int) -> tuple[list[Tensor], int]:
        from dstrun.method.after.calibration import mean_squared_gradients

        x, y = setting.samples(step, self.samples_per_class)
        fisher = mean_squared_gradients(setting, x, y)
        return [f * w.values().double().square() / 2 for f, w in zip(fisher, setting.layers, strict=True)], len(y)
