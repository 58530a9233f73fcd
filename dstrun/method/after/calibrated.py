"""Shared by methods that score a trained network on images: gradients over images without training on them.

In double precision from the gradient on, as squares of small gradients leave the range of single.
Shape letters: A active connections of a layer, B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import AtLeast, option
from dstrun.method.after.retrained import Retrained
from dstrun.method.procedure import Setting
from dstrun.method.repeated import Score
from dstrun.method.statistics import evaluating
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 128
"""Images passed together where their gradients are added anyway; bounds the activations."""


@option
class Calibrated(Retrained):
    """Score on ``samples_per_class`` training images of every class, drawn anew in every round.

    The network is in evaluation mode: running statistics in batch normalization, no dropout.
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


def mean_gradients(setting: Setting, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the gradient of the mean loss on the active connections of every layer: (A,) float64 each.

    Args:
        setting: whose network is left as it was, without gradients.
        x: (B, C, H, W).
        y: (B,) int64.
    """
    with evaluating(setting.model):
        setting.model.zero_grad(set_to_none=True)
        for images, labels in _passes(x, y, CHUNK):
            loss = setting.loss(setting.model(images), labels)
            (loss * (len(labels) / len(y))).backward()
        gradients = [layer.grad().double() for layer in setting.layers]
        setting.model.zero_grad(set_to_none=True)
    return gradients


def mean_squared_gradients(setting: Setting, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the mean over images of the squared gradient of each image's loss: (A,) float64 of every layer.

    One image after the other: any network can do that, in the memory of a single gradient. The square of the mean
    gradient would be another number, about B times smaller where gradients are independent.
    """
    squares = [torch.zeros(layer.count, dtype=torch.float64, device=x.device) for layer in setting.layers]
    with evaluating(setting.model):
        for image, label in _passes(x, y, 1):
            setting.model.zero_grad(set_to_none=True)
            setting.loss(setting.model(image), label).backward()
            for square, layer in zip(squares, setting.layers, strict=True):
                square += layer.grad().double().square()
        setting.model.zero_grad(set_to_none=True)
    return [square / len(y) for square in squares]


def _passes(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Split images and labels into those of each pass; of images without numbers, whose memory counts, return two.

    The second pass finds what the first leaves, and every other is as the second.
    """
    from torch._subclasses.fake_tensor import FakeTensor

    passes = list(zip(x.split(size), y.split(size), strict=True))
    return passes[:2] if isinstance(x, FakeTensor) else passes
