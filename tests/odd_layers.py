"""Networks of layers that no method knows, one a kind: on digits, an image of 8 x 8 is eight steps of eight numbers."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from dstrun.config.option import OneOf, option


class Recurrent(nn.Module):
    """Read the rows of an image one after the other."""

    def __init__(self, kind: type[nn.RNNBase], classes: int) -> None:
        super().__init__()
        self.rnn = kind(8, 12, batch_first=True)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


class Rows(nn.Module):
    """Convolve along the rows."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(12)
        self.grouped = nn.Conv1d(12, 12, 3, stride=2, padding=1, groups=3)
        self.head = nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x[:, 0])))
        return self.head(functional.relu(self.grouped(x)).flatten(1))


class Volume(nn.Module):
    """Convolve in three directions, of which the first has two."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1, 6, 3, padding=(0, 1, 1), bias=False)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (-1, 4))  # (B, 1, 2, 4, 8)
        x = torch.cat([x, x[:, :, :1]], 2)
        return self.head(functional.relu(self.conv3d(x)).mean((2, 3, 4)))


class Up(nn.Module):
    """Enlarge, then convolve."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(1, 4, 2, stride=2)
        self.conv = nn.Conv2d(4, 4, 3)
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.mirror(self.conv(self.up(x)))).mean((2, 3)))


class Words(nn.Module):
    """Take every pixel as one of seventeen words."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 6)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed((x * 4).long().clamp(0, 16).flatten(1)).mean(1))


class Attentive(nn.Module):
    """Attend to rows, then ask once more with a query that is learned."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x[:, 0])
        return self.head(self.cross(self.query.expand(len(x), -1, -1), x, x)[0][:, 0])


class Functional(nn.Module):
    """Compute with weights that no layer holds, or that are not called."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(16, 64) / 8)
        self.held = nn.Linear(16, 16)
        self.vector = nn.Parameter(torch.randn(16))
        self.pair = nn.Bilinear(16, 16, 8)
        self.norm = weight_norm(nn.Linear(8, 8))
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.linear(x.flatten(1), self.raw))
        x = functional.relu(functional.linear(x, self.held.weight, self.held.bias))
        x = x + (x @ self.vector)[:, None]
        return self.head(self.norm(self.pair(x, x)))


class Idle(nn.Module):
    """Have a head that is never asked, a layer whose output nobody learns from, and one that shall stay dense."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(64, 16)
        self.aux_head = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, classes))
        self.target = nn.Linear(64, 16)
        self.whole = nn.Linear(16, 16)
        self.whole.prunable = False
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        with torch.no_grad():
            shift = self.target(x)
        return self.head(self.whole(functional.relu(self.body(x) + shift)))


class Frozen(nn.Module):
    """Learn on features that stay as they are."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.backbone.requires_grad_(False)
        self.body = nn.Linear(64, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.body(self.backbone(x).flatten(1))))


class Vision(nn.Module):
    """Be a small one of torchvision's vision transformers, of which ``vit_b_16`` is one."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from torchvision.models import VisionTransformer

        self.vit = VisionTransformer(8, 4, 2, 2, 16, 32, num_classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(x.expand(-1, 3, -1, -1))


def lazy(classes: int) -> nn.Module:
    """Build layers that learn their size from what they see."""
    body = [nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(16), nn.ReLU()]
    return nn.Sequential(*body, nn.LazyLinear(classes))


def unsized(classes: int) -> nn.Module:
    """Build a lazy layer that sees nothing."""
    model = Words(classes)
    model.add_module("never", nn.LazyLinear(3))
    return model


KINDS = {
    "lstm": lambda classes: Recurrent(nn.LSTM, classes),
    "gru": lambda classes: Recurrent(nn.GRU, classes),
    "conv1d": Rows,
    "conv3d": Volume,
    "transposed": Up,
    "embedding": Words,
    "attention": Attentive,
    "functional": Functional,
    "idle": Idle,
    "frozen": Frozen,
    "lazy": lazy,
    "vision": Vision,
    "unsized": unsized,
    "recurrent only": lambda classes: nn.Sequential(nn.Flatten(2), nn.Flatten(1), Only(classes)),
}


class Only(nn.Module):
    """Have nothing that can be pruned."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)


@option
class OddLayers:
    """Build one of ``KINDS``."""

    kind: Annotated[str, OneOf(*KINDS)] = "lstm"

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        return KINDS[self.kind](classes)


@option
class Torchvision:
    """Build a network of torchvision by its name."""

    name: str = "vit_b_16"

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        import torchvision

        settings = {"image_size": image[1]} if self.name.startswith("vit") else {}
        return getattr(torchvision.models, self.name)(num_classes=classes, **settings)
