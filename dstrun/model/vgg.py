"""VGG-16 and VGG-19 with batch normalization for images of 32 pixels: Simonyan, Zisserman 2014, as others use them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from torch import Tensor, nn

from dstrun.config.option import Above, AtLeast, option
from dstrun.model import scaled
from dstrun.system.trouble import ConfigError

TIMES = (1, 2, 4, 8, 8)
"""Channels of the five stages, relative to those of the first."""


@option
class VGG16:
    """Thirteen 3x3 convolutions in five stages of 1, 2, 4, 8, 8 times ``base`` channels, and three linear layers.

    ``base=64`` is the paper's; ``base=16`` the vgg16-small of Heddes et al. 2024. Hidden linear layers have 512.
    """

    base: Annotated[int, AtLeast(1)] = 64
    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W).

        Raises:
            ConfigError: the image is smaller than 32 pixels, which five poolings would leave nothing of.
        """
        check_size(image, 32, "model=vgg16 and model=vgg16_small need")
        widths = [scaled(times * self.base, self.width) for times in TIMES]
        hidden = scaled(512, self.width)
        features = [*convolutions(image[0], zip((2, 2, 3, 3, 3), widths, strict=True), bias=True), nn.MaxPool2d(2)]
        classifier = [
            nn.Linear(widths[-1], hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        ]
        return VGG(features, classifier)


@option
class VGG19:
    """Sixteen 3x3 convolutions in five stages of 64, 128, 256, 512, 512 channels times ``width``, and a linear layer.

    As the code of GraSP (Wang et al. 2020) has it: no biases before normalization, and average pooling after four max
    poolings.
    """

    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W); weights start as theirs.

        Raises:
            ConfigError: the image is smaller than 16 pixels, which four poolings would leave nothing of.
        """
        check_size(image, 16, "model=vgg19 needs")
        widths = [scaled(64 * times, self.width) for times in TIMES]
        features = convolutions(image[0], zip((2, 2, 4, 4, 4), widths, strict=True), bias=False)
        classifier = nn.Linear(widths[-1], classes)
        for module in features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
        return VGG(features, [classifier])


def check_size(image: tuple[int, int, int], smallest: int, who: str) -> None:
    """Check that an image (C, H, W) has at least so many rows and columns.

    Raises:
        ConfigError: it is smaller.
    """
    _, height, across = image
    if min(height, across) < smallest:
        raise ConfigError(
            f"{who} images of at least {smallest}x{smallest}, not this dataset's {height}x{across}: "
            "choose a resnet or mlp"
        )


def convolutions(channels: int, stages: Iterable[tuple[int, int]], *, bias: bool) -> list[nn.Module]:
    """List the layers of stages of (3x3 convolution, BN, ReLU) with a 2x2 max pooling between them.

    Args:
        channels: of the image.
        stages: how many convolutions, and their channels.
        bias: whether the convolutions have one.
    """
    layers: list[nn.Module] = []
    for number, outs in stages:
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(number):
            # In place is safe: batch normalization keeps its input for the backward pass, not its output.
            convolution = nn.Conv2d(channels, outs, 3, padding=1, bias=bias)
            layers += [convolution, nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]
            channels = outs
    return layers


class VGG(nn.Module):
    """Convolutions, global average pooling, linear layers."""

    def __init__(self, features: Iterable[nn.Module], classifier: Iterable[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes); what is left of rows and columns is averaged."""
        return self.classifier(self.features(x).mean((2, 3)))
