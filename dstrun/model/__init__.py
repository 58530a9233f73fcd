"""Networks, one file a family: an option class with ``build(image, classes)`` and the modules it builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Model(Protocol):
    """What an option of the group ``model`` can do."""

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W); it maps (B, C, H, W) to logits (B, classes).

        Under ``torch.device("meta")`` nothing is allocated.

        Raises:
            ConfigError: the network cannot take images of this shape.
        """
        ...


def scaled(channels: int, width: float) -> int:
    """Scale a number of channels: ``int(channels * width)`` as Heddes et al. 2024 round it, at least one."""
    return max(1, int(channels * width))
