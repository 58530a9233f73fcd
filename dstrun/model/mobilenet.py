"""MobileNet-v1: 3x3 convolutions split into one a channel and one of 1x1 across channels.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017, table 1.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.config.option import Above, option
from dstrun.model import scaled

STEM = 32
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels out, and stride of the convolution before them."""


@option
class MobileNetV1:
    """Thirteen separable convolutions after a 3x3 stem, all channels times ``width``.

    Attributes:
        dense_depthwise: do not prune the depthwise convolutions, 1.1 % of the weights: at nine weights a channel,
            sparsity switches channels off. So do Zhu and Gupta 2017 and the code of RigL, whose sparsity is of what is
            left; STR (Kusupati et al. 2020) prunes them as any other.
    """

    width: Annotated[float, Above(0)] = 1.0
    dense_depthwise: bool = True

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W), any size; made for 224 pixels."""
        widths = [(scaled(channels, self.width), stride) for channels, stride in BLOCKS]
        return MobileNet(image[0], scaled(STEM, self.width), widths, self.dense_depthwise, classes)


class MobileNet(nn.Module):
    """3x3 stem of stride 2, separable convolutions, global average pooling, Linear."""

    def __init__(
        self, channels: int, stem: int, widths: list[tuple[int, int]], dense_depthwise: bool, classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        blocks = []
        ins = stem
        for outs, stride in widths:
            blocks.append(Separable(ins, outs, stride, dense_depthwise))
            ins = outs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(ins, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # By inputs: PyTorch counts the outputs of a depthwise convolution as if each input reached them all.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        x = self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.fc(x.mean((2, 3)))


class Separable(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 convolution, each with BN and ReLU."""

    def __init__(self, ins: int, outs: int, stride: int, dense_depthwise: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(ins, ins, 3, stride=stride, padding=1, groups=ins, bias=False)
        if dense_depthwise:
            self.depthwise.prunable = False  # type: ignore[assignment]
        self.bn1 = nn.BatchNorm2d(ins)
        self.pointwise = nn.Conv2d(ins, outs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, ceil(H / stride), ceil(W / stride))."""
        x = F.relu(self.bn1(self.depthwise(x)), inplace=True)
        return F.relu(self.bn2(self.pointwise(x)), inplace=True)
