"""Sparse products on every geometry, and what PyTorch's dense layers give for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from hypothesis import Phase
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dstrun.backend.sparse.kernel import Kernel
from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry, LinearGeometry
from dstrun.layer.topology import Topology

EVEN = {"derandomize": True, "deadline": None, "phases": [Phase.explicit, Phase.generate]}


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """One layer with an input (C, H, W, N) and an output gradient (O, Ho, Wo, N), float64."""

    geometry: ConvGeometry
    topology: Topology
    weight: Tensor
    bias: Tensor | None
    x: Tensor
    delta: Tensor

    def __repr__(self) -> str:
        return f"{self.geometry}, x {tuple(self.x.shape)}, positions {self.topology.positions.tolist()}"

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.geometry, self.topology, self.weight.device)

    def to(self, dtype: torch.dtype) -> Case:
        """Round activations to a type; weights stay in at least float32."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        bias = None if self.bias is None else self.bias.to(wide)
        return dataclasses.replace(
            self, weight=self.weight.to(wide), bias=bias, x=self.x.to(dtype), delta=self.delta.to(dtype)
        )

    def products(self, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, input gradient and weight gradient."""
        g, pattern = self.geometry, self.pattern
        return (
            kernel.forward(g, pattern, self.weight, self.bias, self.x),
            kernel.input_gradient(g, pattern, self.weight, self.delta, self.x.shape[1:3]),
            kernel.weight_gradient(g, pattern.rows, pattern.inputs, self.x, self.delta),
        )

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same from PyTorch's dense convolution, in the activations' type."""
        g = self.geometry
        flat = self.x.new_zeros(self.topology.size)
        flat[self.topology.positions] = self.weight.to(flat)
        weight = flat.view(g.shape).requires_grad_()
        x = self.x.permute(3, 0, 1, 2).contiguous().requires_grad_()
        bias = None if self.bias is None else self.bias.to(x)
        y = functional.conv2d(x, weight, bias, g.stride, g.padding, g.dilation, g.groups)
        dx, dw = torch.autograd.grad(y, (x, weight), self.delta.permute(3, 0, 1, 2))
        back = (1, 2, 3, 0)
        return y.detach().permute(back), dx.permute(back), dw.flatten()[self.topology.positions]

    def magnitudes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of the absolute terms of each product: what rounding errors are proportional to."""
        bias = None if self.bias is None else self.bias.abs()
        return dataclasses.replace(
            self, weight=self.weight.abs(), bias=bias, x=self.x.abs(), delta=self.delta.abs()
        ).dense()


def case(
    geometry: ConvGeometry, size: tuple[int, int], samples: int, positions: Tensor, bias: bool = True, seed: int = 0
) -> Case:
    """Fill a geometry with normal numbers."""
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    out, channels = geometry.shape[:2]
    return Case(
        geometry,
        Topology(geometry.shape, positions),
        normal(positions.numel()),
        normal(out) if bias else None,
        normal(channels * geometry.groups, *size, samples),
        normal(out, *geometry.output_size(size), samples),
    )


def linear(inputs: int, outputs: int, samples: int, positions: Tensor, bias: bool = True, seed: int = 0) -> Case:
    """Fill a linear layer."""
    geometry = LinearGeometry((outputs, inputs)).as_convolution()
    return case(geometry, (1, 1), samples, positions, bias, seed)


@st.composite
def cases(draw: Callable) -> Case:
    """Draw any layer: kernels larger than the image, steps larger than the kernel, outputs that see only padding."""
    sizes = st.sampled_from([1, 1, 2, 3, 4, 5])
    groups, kernel = draw(st.sampled_from([1, 1, 2, 3])), (draw(sizes), draw(sizes))
    shape = (draw(st.integers(1, 4)) * groups, draw(st.integers(1, 4)), *kernel)
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    geometry = ConvGeometry(shape, groups, draw(pairs), padding, draw(pairs))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(geometry.dilation, kernel, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 5)) for n in least)
    samples = draw(st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 80, 127, 128, 129, 143, 200, 257, 300])))
    total, seed = math.prod(shape), draw(st.integers(0, 2**20))
    count = draw(st.one_of(st.just(0), st.just(1), st.just(total), st.integers(0, total)))
    positions = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return case(geometry, size, samples, positions, draw(st.booleans()), seed)


def assert_close(found: tuple[Tensor, ...], true: tuple[Tensor, ...], magnitude: tuple[Tensor, ...], eps: float):
    """Compare products: errors stay below ``eps`` times the sum of the absolute terms."""
    for name, a, b, most in zip(("output", "input gradient", "weight gradient"), found, true, magnitude, strict=True):
        assert a.shape == b.shape, name
        worst = ((a.double() - b.double()).abs() - eps * most.double()).max().item() if a.numel() else 0
        assert worst <= 0, (name, worst)
