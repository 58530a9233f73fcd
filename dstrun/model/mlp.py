"""Multilayer perceptrons on flattened images, the LeNet-300-100 among them."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated

from torch import nn

from dstrun.config.option import Above, AtLeast, option
from dstrun.model import scaled


@option
class MLP:
    """Flatten, then Linear and ReLU per hidden layer, then Linear; (300, 100) is that of LeCun et al. 1998."""

    hidden: tuple[Annotated[int, AtLeast(1)], ...] = (300, 100)
    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        features = math.prod(image)
        for i, hidden in enumerate(self.hidden, 1):
            layers[f"fc{i}"] = nn.Linear(features, features := scaled(hidden, self.width))
            layers[f"relu{i}"] = nn.ReLU()
        layers[f"fc{len(self.hidden) + 1}"] = nn.Linear(features, classes)
        return nn.Sequential(layers)
