"""Wide residual networks for CIFAR: few layers of many channels, normalized before they convolve.

Zagoruyko, Komodakis, "Wide residual networks", 2016. Their depth counts the convolutions, those of the three shortcuts
among them: WRN-28-10 is ``model.depth=28 model.width=10``.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.config.option import Above, Within, option
from dstrun.model import scaled
from dstrun.system.trouble import ConfigError

STEM = 16


@option
class WideResNet:
    """WRN-d-k: depth d = 6n+4, n blocks in each of three stages of 16k, 32k, 64k channels, after a stem of 16.

    ``width`` is k, and may be fractional. ``dropout`` is applied between the two convolutions of a block: the paper has
    0.3 beside 0, the code of RigL and of sparse momentum 0.3.
    """

    depth: int = 28
    width: Annotated[float, Above(0)] = 2.0
    dropout: Annotated[float, Within(0, 1, high_open=True)] = 0.0

    def __post_init__(self) -> None:
        """Check that the depth is 6n+4."""
        if self.depth < 10 or self.depth % 6 != 4:
            below = (self.depth - 4) // 6 * 6 + 4
            near = f"{below} or {below + 6}" if below >= 10 else "10"
            raise ConfigError(f"model.depth={self.depth} must be 6n+4 for the wide ResNets: the nearest is {near}")

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 32 pixels."""
        widths = [scaled(channels, self.width) for channels in (16, 32, 64)]
        return PreActivationResNet(image[0], widths, (self.depth - 4) // 6, self.dropout, classes)


class PreActivationResNet(nn.Module):
    """3x3 stem, a stage of ``blocks`` blocks per width, BN, ReLU, global average pooling, Linear."""

    def __init__(self, channels: int, widths: list[int], blocks: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        ins = STEM
        stages = []
        for stage, outs in enumerate(widths):
            first = PreActivationBlock(ins, outs, 1 if stage == 0 else 2, dropout)
            others = (PreActivationBlock(outs, outs, 1, dropout) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *others))
            ins = outs
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(ins)
        self.fc = nn.Linear(ins, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(F.relu(self.bn(x), inplace=True).mean((2, 3)))


class PreActivationBlock(nn.Module):
    """x' + conv(relu(BN(conv(y)))) with y = relu(BN(x)); x' = x where the shapes agree, else a 1x1 convolution of y."""

    def __init__(self, ins: int, outs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(ins)
        self.conv1 = nn.Conv2d(ins, outs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or ins != outs:
            self.shortcut = nn.Conv2d(ins, outs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.bn1(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        if self.dropout is not None:
            y = self.dropout(y)
        return x + self.conv2(y)
