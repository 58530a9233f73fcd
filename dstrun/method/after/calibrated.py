"""What the methods share that score a trained network on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import AtLeast, option
from dstrun.method.after.retrained import Retrained
from dstrun.method.procedure import Setting

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.method.repeated import Score


@option
class Calibrated(Retrained):
    """Score on ``samples_per_class`` training images of every class, drawn anew in every round.

    Batch normalization is by its running statistics, and nothing is dropped.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which scores by gradients and prunes between trainings"

    def score(self) -> Score:
        """Score by the saliency of every active connection."""
        return self._score

    def update_samples(self, classes: int) -> int:
        """Count the images of a round."""
        return self.samples_per_class * classes

    def saliency(self, setting: Setting, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the change of the loss without each active connection: (A,) float64 of every layer; the lowest go."""
        raise NotImplementedError

    def _score(self, setting: Setting, step: int) -> tuple[list[Tensor], int]:
        x, y = setting.samples(step, self.samples_per_class)
        return self.saliency(setting, x, y), len(y)
