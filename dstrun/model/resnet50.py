"""ResNet-50 for ImageNet, v1.5: the stride stands in the 3x3 convolution of a bottleneck.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, table 1. Names and shapes of weights are
those of ``torchvision.models.resnet50``, so its checkpoints load.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.model import scaled
from dstrun.option import Above, option

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


@option
class ResNet50:
    """Stages of 3, 4, 6, 3 bottlenecks of 64, 128, 256, 512 channels, each times ``width``, expanded fourfold."""

    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 224 pixels."""
        return BottleneckResNet(image[0], [scaled(inner, self.width) for inner in (64, 128, 256, 512)], classes)


class BottleneckResNet(nn.Module):
    """7x7 stem, 3x3 max pooling, four stages of bottlenecks, global average pooling, Linear."""

    def __init__(self, channels: int, widths: list[int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        ins = widths[0]
        stages = []
        for stage, (blocks, inner) in enumerate(zip(BLOCKS, widths, strict=True)):
            first = Bottleneck(ins, inner, stride=1 if stage == 0 else 2)
            ins = EXPANSION * inner
            stages.append(nn.Sequential(first, *(Bottleneck(ins, inner, stride=1) for _ in range(blocks - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(ins, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """relu(x' + 1x1(3x3(1x1(x)))), a BN after each convolution; x' is projected where the shapes differ."""

    def __init__(self, ins: int, inner: int, stride: int) -> None:
        super().__init__()
        outs = EXPANSION * inner
        self.conv1 = nn.Conv2d(ins, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outs)
        self.downsample = None
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(nn.Conv2d(ins, outs, 1, stride=stride, bias=False), nn.BatchNorm2d(outs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, 4 inner, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)
