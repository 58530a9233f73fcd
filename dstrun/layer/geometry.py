"""How the connections of a linear or convolution layer relate to its inputs and outputs.

Independent of how the weight is stored. A connection (o, i) sees input feature i and output unit o; for a convolution
i = (c, ki, kj), and every pair of sample and output position counts as one item of the batch. Summed inputs of a
convolution are computed without unfolding: they are the weight gradient of a convolution with one output channel
whose output gradient is the per-item factor.

Shape letters: B samples, P items (B times output positions), G groups, O outputs, I inputs of one output, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

from dstrun.system.lazy import torch
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Multiply fp32 numbers as IEEE 754 has it, where a GPU is set to TF32: for sums that are drawn from."""
    backends: Any = torch.backends
    gpu = [backends.cudnn.conv, backends.cuda.matmul] if device.type == "cuda" else []
    before = [what.fp32_precision for what in gpu]
    for what in gpu:
        what.fp32_precision = "ieee"
    try:
        yield
    finally:
        for what, mode in zip(gpu, before, strict=True):
            what.fp32_precision = mode


@dataclass(frozen=True)
class LinearGeometry:
    """A linear layer, y = x W^T with any leading dimensions; W is (O, I)."""

    shape: tuple[int, ...]
    groups: int = 1

    def as_convolution(self) -> ConvGeometry:
        """Return the 1x1 convolution over one position that computes the same."""
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

    def weight_gradient(self, x: Tensor, delta: Tensor, first: int, last: int) -> Tensor:
        """Compute the dense gradient of the outputs from ``first`` to ``last``: (last - first, I)."""
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
        """Return (Ho, Wo) of an input of size (H, W)."""
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
        from torch.nn.grad import conv2d_weight

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

    def weight_gradient(self, x: Tensor, delta: Tensor, first: int, last: int) -> Tensor:
        """Return the dense gradient of the outputs from ``first`` to ``last``, of one group or of whole groups.

        Returns:
            (last - first, C / groups, kh, kw).
        """
        return self.gradient_of(x, delta[:, first:last], first)

    def gradient_of(self, x: Tensor, delta: Tensor, first: int) -> Tensor:
        """Return the dense gradient of the outputs from ``first`` on that ``delta`` (B, ...) is of: as above."""
        from torch.nn.grad import conv2d_weight

        channels, outputs, count = self.shape[1], self.shape[0] // self.groups, delta.shape[1]
        group, groups = first // outputs, max(1, count // outputs)
        part = x[:, group * channels : (group + groups) * channels].to(delta.dtype)
        steps: Any = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}  # typed as int there
        return conv2d_weight(part, (count, *self.shape[1:]), delta, groups=groups, **steps)


@dataclass(frozen=True)
class Conv1dGeometry:
    """A 1-D convolution, which is a 2-D one over a single row; W is (O, C / groups, k)."""

    shape: tuple[int, ...]
    groups: int
    stride: int
    padding: int
    dilation: int

    def as_convolution(self) -> ConvGeometry:
        """Return the convolution over a single row that computes the same."""
        out, channels, taps = self.shape
        steps = (1, self.stride), (0, self.padding), (1, self.dilation)
        return ConvGeometry((out, channels, 1, taps), self.groups, *steps)

    def signs(self, delta: Tensor, generator: torch.Generator, ranks: Ranks = ALONE) -> Tensor:
        """Draw a Rademacher sign for every sample and output position: (B, 1, 1, Lo)."""
        return self.as_convolution().signs(delta[:, :, None], generator, ranks)

    def input_sums(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the patches over items: (G, I); see ``ConvGeometry.input_sums``."""
        return self.as_convolution().input_sums(x[:, :, None], factor)

    def output_sums(self, delta: Tensor, factor: Tensor | None) -> Tensor:
        """Sum the output gradients over items: (O,)."""
        return self.as_convolution().output_sums(delta[:, :, None], factor)

    def weight_gradient(self, x: Tensor, delta: Tensor, first: int, last: int) -> Tensor:
        """Return the same as that of a 2-D convolution: (last - first, C / groups, k)."""
        return self.as_convolution().weight_gradient(x[:, :, None], delta[:, :, None], first, last)[:, :, 0]


Geometry = LinearGeometry | ConvGeometry | Conv1dGeometry
Layer: TypeAlias = "nn.Linear | nn.Conv1d | nn.Conv2d"
"""The kinds of module that have a geometry."""


def is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """Return whether a module is of these kinds."""
    return isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)


def geometry(module: nn.Module) -> Geometry:
    """Read the geometry off a ``Linear``, ``Conv1d`` or ``Conv2d``.

    Raises:
        TypeError: another module, a padding mode other than zeros, or one of another width on either side.
    """
    if isinstance(module, torch.nn.Linear):
        return LinearGeometry((module.out_features, module.in_features))
    padding = _padding(module) if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d) else None
    if padding is None:
        raise TypeError(f"cannot make a sparse layer from {module}")
    assert isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d)
    shape = tuple(module.weight.shape)
    if isinstance(module, torch.nn.Conv1d):
        return Conv1dGeometry(shape, module.groups, module.stride[0], padding[0], module.dilation[0])
    pair = [cast(tuple[int, int], p) for p in (module.stride, padding, module.dilation)]
    return ConvGeometry(shape, module.groups, *pair)


def has_geometry(module: nn.Module) -> bool:
    """Return whether ``geometry`` can be read off a module."""
    if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
        return _padding(module) is not None
    return isinstance(module, torch.nn.Linear)


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    """Return the zeros on either side by direction; ``None`` where others are padded, or more on one side."""
    if module.padding_mode != "zeros":
        return None
    if not isinstance(module.padding, str):
        return module.padding
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    both = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return None if any(n % 2 for n in both) else tuple(n // 2 for n in both)


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator, ranks: Ranks) -> Tensor:
    """Draw +1 or -1 with equal chance, on the generator's device, then move: the same on every device.

    They are drawn for the whole batch, of which ``shape`` is the part that is here.
    """
    whole = shape[0] * ranks.parts
    bits = torch.randint(2, (whole, *shape[1:]), generator=generator, dtype=torch.int8)[ranks.local_slice(whole)]
    return sent(bits, like.device).float().mul_(2).sub_(1)
