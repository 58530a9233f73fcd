from __future__ import annotations

import pytest
import torch

from dstrun.backend.sparse.kernel import fast, linear, reference
from dstrun.backend.sparse.pattern import Pattern
from dstrun.layer.geometry import ConvGeometry
from dstrun.layer.topology import Topology


def layer(outputs: int, inputs: int, groups: int, density: float) -> tuple[ConvGeometry, Pattern, torch.Tensor]:
    """Draw a 1x1 convolution whose first output has no connection."""
    geometry = ConvGeometry((outputs, inputs // groups, 1, 1), groups, (1, 1), (0, 0), (1, 1))
    mask = torch.rand(geometry.shape) < density
    mask[0] = False
    topology = Topology(geometry.shape, mask.flatten().nonzero().flatten())
    return geometry, Pattern(geometry, topology), torch.randn(topology.count)


@pytest.mark.parametrize("samples", [1, 17, 127, 1024, 1171, 1300])
@pytest.mark.parametrize(("outputs", "inputs", "groups"), [(24, 40, 1), (40, 24, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_equal_the_reference(samples: int, outputs: int, inputs: int, groups: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    geometry, pattern, weight = layer(outputs, inputs, groups, 0.5)
    bias = torch.randn(outputs)
    x, delta = torch.randn(inputs, 1, 1, samples).to(dtype), torch.randn(outputs, 1, 1, samples).to(dtype)
    pairs = []
    for kernel in (fast, reference):
        y = kernel.forward(geometry, pattern, weight, bias, x)
        dx = kernel.input_gradient(geometry, pattern, weight, delta, (1, 1))
        dw = kernel.weight_gradient(geometry, pattern.rows, pattern.inputs, x, delta)
        pairs.append((y, dx, dw / samples**0.5))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for got, expected in zip(*pairs, strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_copied_tiles_give_the_same_bits() -> None:
    """Lanes do not see each other: the first ones of many, copied, equal the same ones alone, not copied."""
    torch.manual_seed(0)
    geometry, pattern, weight = layer(30, 20, 1, 0.4)
    x = torch.randn(20, 1, 1, linear.LANES + 200)
    few = x[..., :130].contiguous()
    assert pattern.count >= linear.REUSE * 20
    y = fast.forward(geometry, pattern, weight, None, x)
    assert torch.equal(y[..., :128], fast.forward(geometry, pattern, weight, None, few)[..., :128])


def test_layer_without_connections_gives_its_bias() -> None:
    geometry, pattern, weight = layer(3, 5, 1, 0.0)
    bias = torch.randn(3)
    y = fast.forward(geometry, pattern, weight, bias, torch.randn(5, 1, 1, 2000))
    assert torch.equal(y, bias.view(3, 1, 1, 1).expand(3, 1, 1, 2000))
