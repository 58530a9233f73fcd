"""The layers that ``dstrun bench kernel`` knows by name, from networks common in sparse training. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One layer.

    Attributes:
        inputs, outputs: channels, or features of a linear layer.
        side: of the square image that a 3x3 convolution of stride 1 sees; 0 for a linear layer.
        items: that one sample gives a linear layer, such as tokens.
    """

    inputs: int
    outputs: int
    side: int = 0
    items: int = 1

    @property
    def weight(self) -> tuple[int, ...]:
        """Return the dense shape of its weight."""
        return (self.outputs, self.inputs, 3, 3) if self.side else (self.outputs, self.inputs)


SHAPES = {
    "R56-s1": Shape(16, 16, 32),
    "R56-s2": Shape(32, 32, 16),
    "R56-s3": Shape(64, 64, 8),
    "VGG64@32": Shape(64, 64, 32),
    "VGG128@16": Shape(128, 128, 16),
    "VGG256@8": Shape(256, 256, 8),
    "VGG512@4": Shape(512, 512, 4),
    "VGG512@2": Shape(512, 512, 2),
    "gseVGG128@4": Shape(128, 128, 4),
    "ViT192-768": Shape(192, 768, items=64),
    "ViT768-192": Shape(768, 192, items=64),
    "4096-4096": Shape(4096, 4096),
    "16384-16384": Shape(16384, 16384),
}
"""Stages of ResNet-56; of VGG-16, channels at image side; of its version with 16 to 128; both layers of a ViT's MLP."""


def find(name: str) -> Shape:
    """Return the layer of a name; ``I-O`` is a linear layer from I to O features, whatever they are.

    Raises:
        KeyError: there is none.
    """
    if sides := re.fullmatch("([1-9][0-9]*)-([1-9][0-9]*)", name):
        return Shape(*map(int, sides.groups()))
    return SHAPES[name]
