"""Vision transformers: a simple one for small images, and that of DeiT for ImageNet.

Shape letters: B batch, T tokens, D features, H heads.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.config.option import Above, AtLeast, option
from dstrun.model import scaled
from dstrun.system.trouble import ConfigError

BLOCKS = 4
HEAD = 64
"""Features of a head."""

TEMPERATURE = 1e4

DEIT_BLOCKS = 12
EPSILON = 1e-6
"""Of DeiT's layer normalization."""


def tiles(image: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Return how many patches an image (C, H, W) has, down and across.

    Raises:
        ConfigError: they do not tile it.
    """
    _, height, across = image
    if height % patch or across % patch:
        fitting = [p for p in range(1, min(height, across) + 1) if not (height % p or across % p)]
        raise ConfigError(
            f"model.patch={patch} must divide the image's {height}x{across}: "
            f"the nearest is {min(fitting, key=lambda p: abs(p - patch))}"
        )
    return height // patch, across // patch


@option
class ViT:
    """Four blocks of 512 features, 6 heads of 64 and a hidden layer of 256, each of them times ``width``.

    Beyer, Zhai, Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022: no class token, no dropout, fixed
    position embeddings, mean pooling; in the size of Heddes et al. 2024.
    """

    patch: Annotated[int, AtLeast(1)] = 4
    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W).

        Raises:
            ConfigError: the patches do not tile the image.
        """
        return SimpleViT(
            self.patch,
            image[0],
            tiles(image, self.patch),
            features=scaled(512, self.width),
            heads=scaled(6, self.width),
            hidden=scaled(256, self.width),
            classes=classes,
        )


@option
class DeiT:
    """The ViT-S/16 of DeiT: 12 blocks of 384 features, 6 heads of 64 and a hidden layer of 1,536, each times ``width``.

    Touvron et al., "Training data-efficient image transformers & distillation through attention", 2021; Dosovitskiy et
    al. 2021 in its other sizes: ``width=0.5`` is DeiT-Ti, ``width=2`` ViT-B/16. It has a class token and learned
    position embeddings. Names and shapes of weights are those of DeiT's checkpoints. Unlike their training, it has no
    stochastic depth.
    """

    patch: Annotated[int, AtLeast(1)] = 16
    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W); made for 224 pixels.

        Raises:
            ConfigError: the patches do not tile the image.
        """
        down, across = tiles(image, self.patch)
        return ClassTokenViT(self.patch, image[0], down * across, heads=scaled(6, self.width), classes=classes)


class SimpleViT(nn.Module):
    """Patches, LN-Linear-LN, positions added, blocks, mean over tokens, LN-Linear."""

    positions: Tensor

    def __init__(
        self, patch: int, channels: int, grid: tuple[int, int], *, features: int, heads: int, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.patch = patch
        pixels = channels * patch * patch
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, features), nn.LayerNorm(features))
        # Not persistent: it follows from the shape, and a checkpoint should hold only what was learned.
        self.register_buffer("positions", sincos_positions(grid, features), persistent=False)
        self.blocks = nn.Sequential(*(Block(features, heads, hidden) for _ in range(BLOCKS)))
        self.head = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        p = self.patch
        batch, channels, height, across = x.shape
        x = x.reshape(batch, channels, height // p, p, across // p, p)
        x = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        x = self.blocks(self.embed(x) + self.positions)
        return self.head(x.mean(1))


class Block(nn.Module):
    """x + Attention(x), then x + MLP(x), both normalized first."""

    def __init__(self, features: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(features, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.attention(x)
        return x + self.mlp(x)


class Attention(nn.Module):
    """LN, softmax(q k' / sqrt(64)) v over ``heads`` heads of 64, and a linear map back; no biases."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * heads * HEAD, bias=False)
        self.split = nn.Unflatten(-1, (3, heads, HEAD))
        self.out = nn.Linear(heads * HEAD, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return self.out(attend(self.split(self.qkv(self.norm(x)))))


def attend(qkv: Tensor) -> Tensor:
    """Compute softmax(q k' / sqrt(64)) v of every head: (B, T, 3, H, 64), queries first, to (B, T, H 64)."""
    q, k, v = qkv.unbind(2)
    found = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return found.transpose(1, 2).flatten(2)


def sincos_positions(grid: tuple[int, int], features: int) -> Tensor:
    """Compute the table (T, D) of fixed positions: [sin x w, cos x w, sin y w, cos y w], w_k = 1e4^(-k / (K - 1)).

    K = ceil(D / 4); where 4 does not divide D the last columns are left out.
    """
    quarter = -(-features // 4)
    frequency = TEMPERATURE ** -(torch.arange(quarter) / max(quarter - 1, 1))
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    x, y = x.flatten()[:, None] * frequency, y.flatten()[:, None] * frequency
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), 1)[:, :features]


class ClassTokenViT(nn.Module):
    """Patches, a class token before them, positions added, blocks, LN, Linear of the class token."""

    def __init__(self, patch: int, channels: int, patches: int, *, heads: int, classes: int) -> None:
        super().__init__()
        features = heads * HEAD
        self.cls_token = nn.Parameter(torch.zeros(1, 1, features))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, features))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, features, patch, stride=patch)})
        self.blocks = nn.Sequential(*(DeiTBlock(features, heads) for _ in range(DEIT_BLOCKS)))
        self.norm = nn.LayerNorm(features, eps=EPSILON)
        self.head = nn.Linear(features, classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes)."""
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class DeiTBlock(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)), with biases throughout; the hidden layer has 4 D."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features, eps=EPSILON)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(features, 3 * features), "proj": nn.Linear(features, features)})
        self.split = nn.Unflatten(-1, (3, heads, HEAD))
        self.norm2 = nn.LayerNorm(features, eps=EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(features, 4 * features), "fc2": nn.Linear(4 * features, features)})

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.attn["proj"](attend(self.split(self.attn["qkv"](self.norm1(x)))))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
