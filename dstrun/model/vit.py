"""A simple vision transformer: no class token, no dropout, fixed positions, mean pooling.

Beyer, Zhai, Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022; in the size of Heddes et al. 2024.
Shape letters: B batch, T tokens, D features, H heads.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.model import scaled
from dstrun.option import Above, AtLeast, ConfigError, option

BLOCKS = 4
HEAD = 64
TEMPERATURE = 1e4


@option
class ViT:
    """Four blocks of 512 features, 6 heads of 64 and a hidden layer of 256, each of them times ``width``."""

    patch: Annotated[int, AtLeast(1)] = 4
    width: Annotated[float, Above(0)] = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W).

        Raises:
            ConfigError: the patches do not tile the image.
        """
        channels, height, across = image
        if height % self.patch or across % self.patch:
            tiles = [p for p in range(1, min(height, across) + 1) if not (height % p or across % p)]
            raise ConfigError(
                f"model.patch={self.patch} must divide the image's {height}x{across}: "
                f"the nearest is {min(tiles, key=lambda p: abs(p - self.patch))}"
            )
        return SimpleViT(
            self.patch,
            channels,
            (height // self.patch, across // self.patch),
            features=scaled(512, self.width),
            heads=scaled(6, self.width),
            hidden=scaled(256, self.width),
            classes=classes,
        )


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
        self.heads = heads
        self.norm = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * heads * HEAD, bias=False)
        self.out = nn.Linear(heads * HEAD, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def sincos_positions(grid: tuple[int, int], features: int) -> Tensor:
    """Compute the table (T, D) of fixed positions: [sin x w, cos x w, sin y w, cos y w], w_k = 1e4^(-k / (K - 1)).

    K = ceil(D / 4); where 4 does not divide D the last columns are left out.
    """
    quarter = -(-features // 4)
    frequency = TEMPERATURE ** -(torch.arange(quarter) / max(quarter - 1, 1))
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    x, y = x.flatten()[:, None] * frequency, y.flatten()[:, None] * frequency
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), 1)[:, :features]
