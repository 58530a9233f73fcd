"""The residual networks of He et al. 2015 for CIFAR: three stages, shortcuts without parameters.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, section 4.2.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.config.option import Above, option
from dstrun.model import scaled
from dstrun.system.trouble import ConfigError


@option
class ResNet:
    """ResNet-20, 32, 44, 56, 110 ...: depth 6n+2, n blocks in each of three stages of 16, 32, 64 channels."""

    depth: int = 56
    width: Annotated[float, Above(0)] = 1.0

    def __post_init__(self) -> None:
        """Check that the depth is 6n+2."""
        if self.depth < 8 or self.depth % 6 != 2:
            below = (self.depth - 2) // 6 * 6 + 2
            near = f"{below} or {below + 6}" if below >= 8 else "8"
            raise ConfigError(f"model.depth={self.depth} must be 6n+2 for the CIFAR ResNets: the nearest is {near}")

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; convolutions start as in He et al. 2015."""
        return CifarResNet(
            image[0], tuple(scaled(channels, self.width) for channels in (16, 32, 64)), (self.depth - 2) // 6, classes
        )


class CifarResNet(nn.Module):
    """3x3 stem, a stage of ``blocks`` blocks per width, global average pooling, Linear."""

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        ins = widths[0]
        stages = []
        for stage, outs in enumerate(widths):
            first = BasicBlock(ins, outs, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(outs, outs, stride=1) for _ in range(blocks - 1))))
            ins = outs
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(ins, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class BasicBlock(nn.Module):
    """relu(x' + BN(conv(relu(BN(conv(x)))))), with x' = x where the shapes agree, else option A."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ins, outs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outs)
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)
        self.stride = stride
        self.missing = outs - ins

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.missing:
            # Option A: every second position, the missing channels zero, half of them on each side.
            before = self.missing // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))
        return F.relu(y + x, inplace=True)
