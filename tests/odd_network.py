"""A network with everything that is unusual: grouped and 1x1 convolutions, no bias, and optionally tied weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dstrun.config.option import option


@option
class Odd:
    """Convolutions of all kinds, then two linear layers of which the second uses the first one's weight again."""

    width: float = 1.0
    tied: bool = True

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        return Network(image[0], classes, round(8 * self.width), self.tied)


class Network(nn.Module):
    def __init__(self, channels: int, classes: int, width: int, tied: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(width, 2 * width, 3, padding=2, stride=2, dilation=2, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.point = nn.Conv2d(2 * width, 2 * width, 1)
        self.once = nn.Linear(2 * width, 2 * width, bias=False)
        self.again = nn.Linear(2 * width, 2 * width)
        if tied:
            self.again.weight = self.once.weight
        self.head = nn.Linear(2 * width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.grouped(functional.relu(self.stem(x)))))
        x = functional.relu(self.point(x)).mean((2, 3))
        x = functional.relu(self.once(x))
        x = x + torch.tanh(self.again(x))
        return self.head(x)
