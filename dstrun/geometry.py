"""How the connections of a linear or convolution layer relate to its inputs and outputs.

Independent of how the weight is stored. A connection (o, i) sees input feature i and output unit o; for a convolution
i = (c, ki, kj), and every pair of sample and output position counts as one item of the batch. Summed inputs of a
convolution are computed without unfolding: they are the weight gradient of a convolution with one output channel
whose output gradient is the per-item factor.

Shape letters: B samples, P items (B times output positions), G groups, O outputs, I inputs of one output, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from dstrun.ranks import ALONE, Ranks


@dataclass(frozen=True)
class LinearGeometry:
    """A linear layer, y = x W^T with any leading dimensions; W is (O, I)."""

    shape: tuple[int, ...]
    groups: int = 1

    def as_convolution(self) -> ConvGeometry:
        """Give the 1x1 convolution over one position that computes the same."""
        return ConvGeometry((*self.shape, 1, 1), 1, (1, 1), (0, 0), (1, 1))

    def signs(self, delta: Tensor, generator: torch.Generator, ranks: Ranks = ALONE) -> Tensor:
        """Draw a Rademacher sign for every item: (P,)."""
        return _signs((delta.numel() // delta.shape[-1],), delta, generator, ranks)

    def input_sums(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the inputs over items: (G=1, I); with a factor f[p], sum_p f[p] x[p, i], else sum_p |x[p, i]|."""
        x = x.reshape(-1, x.shape[-1]).float()
        return (x.abs().sum(0) if factor is None else factor @ x)[None]

    def output_sums(self, delta: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the output gradients over items, as ``input_sums`` does: (O,)."""
        delta = delta.reshape(-1, delta.shape[-1]).float()
        return delta.abs().sum(0) if factor is None else factor @ delta

    def weight_gradient(self, x: Tensor, delta: Tensor, group: int, first: int, last: int) -> Tensor:
        """Give the dense gradient of the outputs from ``first`` to ``last``, all of one group: (last - first, I)."""
        flat = delta.reshape(-1, delta.shape[-1])[:, first:last]
        return flat.t() @ x.reshape(-1, x.shape[-1]).to(delta.dtype)


@dataclass(frozen=True)
class ConvGeometry:
    """A 2-D convolution; W is (O, C / groups, kh, kw)."""

    shape: tuple[int, ...]
    groups: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def pointwise(self) -> bool:
        """Whether every output position sees exactly the input at that position."""
        return (*self.shape[2:], *self.stride) == (1, 1, 1, 1) and self.padding == (0, 0)

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Give (Ho, Wo) of an input of size (H, W)."""
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(size, self.padding, self.dilation, self.shape[2:], self.stride, strict=True)
        )
        return height, width

    def signs(self, delta: Tensor, generator: torch.Generator, ranks: Ranks = ALONE) -> Tensor:
        """Draw a Rademacher sign for every sample and output position: (B, 1, Ho, Wo)."""
        return _signs((delta.shape[0], 1, *delta.shape[2:]), delta, generator, ranks)

    def input_sums(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the patches over items: (G, I); with factor (B, 1, Ho, Wo), sum_p f[p] x[p, i], else sum_p |x[p, i]|."""
        if factor is None:  # the absolute patches add up over samples first: no batch is left in the sum over positions
            x = x.abs().float().sum(0, keepdim=True)
            factor = x.new_ones(1, 1, *self.output_size(x.shape[2:]))
        weight = (1, x.shape[1], *self.shape[2:])
        steps: Any = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}  # typed as int there
        sums = conv2d_weight(x.float(), weight, factor, **steps)
        return sums.reshape(self.groups, -1)

    def output_sums(self, delta: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the output gradients over items: (O,)."""
        delta = delta.float()
        return (delta.abs() if factor is None else delta * factor).sum((0, 2, 3))

    def weight_gradient(self, x: Tensor, delta: Tensor, group: int, first: int, last: int) -> Tensor:
        """Give the dense gradient of the outputs from ``first`` to ``last`` of a group: (last - first, C, kh, kw)."""
        channels = self.shape[1]
        part = x[:, group * channels : (group + 1) * channels].to(delta.dtype)
        steps: Any = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}  # typed as int there
        return conv2d_weight(part, (last - first, *self.shape[1:]), delta[:, first:last], **steps)


Geometry = LinearGeometry | ConvGeometry


def geometry(module: nn.Module) -> Geometry:
    """Read the geometry off a ``Linear`` or ``Conv2d``.

    Raises:
        TypeError: another module, or a padding mode other than zeros.
    """
    if isinstance(module, nn.Linear):
        return LinearGeometry((module.out_features, module.in_features))
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        pair = [cast(tuple[int, int], p) for p in (module.stride, module.padding, module.dilation)]
        return ConvGeometry(tuple(module.weight.shape), module.groups, *pair)
    raise TypeError(f"no sparse layer is made of {module}")


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator, ranks: Ranks) -> Tensor:
    """Draw +1 or -1 with equal chance, on the generator's device, then move: the same on every device.

    They are drawn for the whole batch, of which ``shape`` is the part that is here.
    """
    whole = shape[0] * ranks.parts
    bits = torch.randint(2, (whole, *shape[1:]), generator=generator, dtype=torch.int8)[ranks.mine(whole)]
    return bits.to(like.device).float().mul_(2).sub_(1)
