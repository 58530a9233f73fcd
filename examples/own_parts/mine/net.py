"""A small convolutional network: plain PyTorch."""

from torch import nn


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        """Return logits (B, classes) for images (B, C, H, W)."""
        return self.classifier(self.features(x).flatten(1))
