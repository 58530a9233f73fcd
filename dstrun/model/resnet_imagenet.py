"""The residual networks of He et al. 2015 for ImageNet; ResNet-50 is v1.5: the stride stands in its 3x3 convolutions.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, table 1. Names and shapes of weights are
those of ``torchvision.models``, so its checkpoints load.

``stem=cifar`` is how these networks are used on images of 32 pixels: a 3x3 convolution of stride 1 and no pooling in
place of the 7x7 convolution and the pooling, which leave a quarter of the rows and columns (github.com/kuangliu/
pytorch-cifar, whose ResNet-18 is what most call one on CIFAR).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.config.option import Above, OneOf, option
from dstrun.model import scaled


@option
class ResNet18:
    """Four stages of 2 blocks of 64, 128, 256, 512 channels, each times ``width``; two 3x3 convolutions a block."""

    width: Annotated[float, Above(0)] = 1.0
    stem: Annotated[str, OneOf("imagenet", "cifar")] = "imagenet"

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 224 pixels, or 32 with the other stem."""
        return ImageNetResNet(image[0], BasicBlock, (2, 2, 2, 2), self.width, self.stem, classes)


@option
class ResNet34:
    """Stages of 3, 4, 6, 3 blocks of 64, 128, 256, 512 channels, each times ``width``; two 3x3 convolutions a block."""

    width: Annotated[float, Above(0)] = 1.0
    stem: Annotated[str, OneOf("imagenet", "cifar")] = "imagenet"

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 224 pixels, or 32 with the other stem."""
        return ImageNetResNet(image[0], BasicBlock, (3, 4, 6, 3), self.width, self.stem, classes)


@option
class ResNet50:
    """Stages of 3, 4, 6, 3 bottlenecks of 64, 128, 256, 512 channels, each times ``width``, expanded fourfold."""

    width: Annotated[float, Above(0)] = 1.0
    stem: Annotated[str, OneOf("imagenet", "cifar")] = "imagenet"

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 224 pixels, or 32 with the other stem."""
        return ImageNetResNet(image[0], Bottleneck, (3, 4, 6, 3), self.width, self.stem, classes)


class BasicBlock(nn.Module):
    """relu(x' + 3x3(3x3(x))), a BN after each convolution; x' is projected where the shapes differ."""

    expansion = 1

    def __init__(self, ins: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ins, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.downsample = projection(ins, inner, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, inner, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """relu(x' + 1x1(3x3(1x1(x)))), a BN after each convolution; x' is projected where the shapes differ."""

    expansion = 4

    def __init__(self, ins: int, inner: int, stride: int) -> None:
        super().__init__()
        outs = self.expansion * inner
        self.conv1 = nn.Conv2d(ins, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outs)
        self.downsample = projection(ins, outs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, 4 inner, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def projection(ins: int, outs: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut of a block that changes shape, a 1x1 convolution and BN; ``None`` where none is needed."""
    if stride == 1 and ins == outs:
        return None
    return nn.Sequential(nn.Conv2d(ins, outs, 1, stride=stride, bias=False), nn.BatchNorm2d(outs))


class ImageNetResNet(nn.Module):
    """A stem, four stages of blocks, global average pooling, Linear."""

    def __init__(
        self,
        channels: int,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        width: float,
        stem: str,
        classes: int,
    ) -> None:
        super().__init__()
        widths = [scaled(inner, width) for inner in (64, 128, 256, 512)]
        ins = widths[0]
        small = stem == "cifar"
        size, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, ins, size, stride=stride, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(ins)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for stage, (count, inner) in enumerate(zip(blocks, widths, strict=True)):
            first = block(ins, inner, stride=1 if stage == 0 else 2)
            ins = block.expansion * inner
            stages.append(nn.Sequential(first, *(block(ins, inner, stride=1) for _ in range(count - 1))))
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
