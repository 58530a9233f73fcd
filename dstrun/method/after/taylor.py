"""First-order saliency of a trained network (Molchanov et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.method.after.retrained import Retrained
from dstrun.method.procedure import Setting
from dstrun.option import AtLeast, option

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.method.repeated import Score


@option
class Taylor(Retrained):
    """Prune the connections of lowest (g w)^2, the first-order change of the loss without them, squared.

    g = dL/dw is the mean over ``samples_per_class`` training images of every class, drawn anew in every round, with
    batch normalization by its running statistics and without dropout.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which scores by gradients and prunes between trainings"

    def score(self) -> Score:
        """Score by the gradient of the mean loss."""
        return self._score

    def update_samples(self, classes: int) -> int:
        """Count the images of a round."""
        return self.samples_per_class * classes

    def _score(self, setting: Setting, step: int) -> tuple[list[Tensor], int]:
        from dstrun.method.after.calibration import mean_gradients

        x, y = setting.samples(step, self.samples_per_class)
        gradients = mean_gradients(setting, x, y)
        return [(g * w.values().double()).square() for g, w in zip(gradients, setting.layers, strict=True)], len(y)
