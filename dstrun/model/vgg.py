"""VGG-16 for images of 32 pixels, with batch normalization: Simonyan, Zisserman 2014 as Heddes et al. 2024 use it."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from dstrun.model import scaled
from dstrun.option import Above, AtLeast, ConfigError, option

SMALLEST = 32
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


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
        channels, height, across = image
        if min(height, across) < SMALLEST:
            raise ConfigError(
                f"model=vgg16 and model=vgg16_small take images of at least {SMALLEST}x{SMALLEST}, "
                f"not this dataset's {height}x{across}: choose a resnet or mlp"
            )
        stages = [[scaled(times * self.base, self.width) for times in stage] for stage in STAGES]
        return VGG(channels, stages, scaled(512, self.width), classes)


class VGG(nn.Module):
    """Stages of (3x3 convolution with bias, BN, ReLU), a 2x2 max pooling after each; then the linear layers."""

    def __init__(self, channels: int, stages: list[list[int]], hidden: int, classes: int) -> None:
        super().__init__()
        features: list[nn.Module] = []
        for stage in stages:
            for outs in stage:
                # In place is safe: batch normalization keeps its input for the backward pass, not its output.
                features += [nn.Conv2d(channels, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]
                channels = outs
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes); what is left of larger images is averaged."""
        return self.classifier(self.features(x).mean((2, 3)))
