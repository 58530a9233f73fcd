"""What the kernels for GPUs have to do, on any device; run as a script, on the CPU with Triton's interpreter.

Prints the names of the cases that fail, each with its last line. The interpreter rounds bfloat16 towards zero.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from product_case import Case, assert_close, linear
from torch import Tensor, nn

from dstrun.backend.sparse import layer as sparse
from dstrun.backend.sparse import product
from dstrun.backend.sparse.kernel import gpu, reference
from dstrun.backend.sparse.pattern import Pattern
from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.layer.growth import GrowthRequest
from dstrun.layer.topology import Topology
from dstrun.subset.uniform import Uniform

INPUTS, OUTPUTS = 40, 7


def some(inputs: int = INPUTS, outputs: int = OUTPUTS, density: float = 0.5) -> Tensor:
    """Return positions: none of the first and the fourth output, all of the sixth, none of the fourth input."""
    active = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(0)) < density
    active[5 % outputs] = True
    active[::3][:2] = False
    active[:, 3] = False
    return active.flatten().nonzero().flatten()


def moved(case: Case, device: torch.device) -> Case:
    """Return a case on a device."""
    tensors = {name: getattr(case, name) for name in ("weight", "bias", "x", "delta")}
    there = {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
    return dataclasses.replace(case, **there)


def compare(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    """Compare the products with the reference's in float64, with inputs rounded to a type."""
    rounded = case.to(dtype)
    exact = rounded.to(torch.float64)
    found = moved(rounded, device).products(gpu)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32]
    y, dx, dw = exact.magnitudes()
    eps = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / (2 if device.type == "cuda" else 1)
    true = exact.products(reference)
    most = y * 1e-6 + true[0].abs() * eps, dx * 1e-6 + true[1].abs() * eps, dw * 1e-6
    assert_close(tuple(t.cpu() for t in found), true, most, 1.001)


def every_batch(items: int, dtype: torch.dtype, bias: bool, device: torch.device) -> None:
    compare(linear(INPUTS, OUTPUTS, items, some(), bias, seed=items), dtype, device)


def many_programs(device: torch.device) -> None:
    """Compare where there are three blocks of items, and where one output has three programs for its gradients."""
    compare(linear(5, 3, 2 * gpu.LANES + 14, some(5, 3)), torch.float32, device)
    inputs = 2 * gpu.SHARE + 5
    compare(linear(inputs, 2, 3, torch.arange(2 * inputs)[7:]), torch.float32, device)


def wide_types(device: torch.device) -> None:
    """Compare where connections and inputs are numbered by 32 bits, and by 64."""
    case = moved(linear(INPUTS, OUTPUTS, 5, some()).to(torch.float32), device)
    expected = case.products(gpu)
    for dtype in (torch.int32, torch.int64):
        with patch.object(Case, "pattern", property(partial(widened, dtype=dtype))):
            assert {t.dtype for t in case.pattern.tensors()} == {dtype}
            assert all(map(torch.equal, case.products(gpu), expected))


def widened(case: Case, dtype: torch.dtype) -> Pattern:
    pattern = Pattern(case.geometry, case.topology, case.weight.device)
    pattern.keeps = True  # as a linear layer's is, which these kernels see as a convolution
    pattern._keep()
    for name, tensor in pattern.named_buffers():
        setattr(pattern, name, tensor.to(dtype))
    return pattern


def nothing(device: torch.device) -> None:
    """Check that there is the bias, or zeros, without connections, and nothing without items."""
    none = torch.empty(0, dtype=torch.int64)
    for bias in (True, False):
        case = moved(linear(5, 3, 20, none, bias).to(torch.float32), device)
        y, dx, dw = case.products(gpu)
        assert torch.equal(y, torch.zeros_like(y) if case.bias is None else case.bias.view(3, 1, 1, 1).expand_as(y))
        assert not dx.any()
        assert dw.shape == (0,)
    y, dx, dw = moved(linear(5, 3, 0, torch.arange(15)).to(torch.float32), device).products(gpu)
    assert y.shape == (3, 1, 1, 0)
    assert dx.shape == (5, 1, 1, 0)
    assert torch.equal(dw, torch.zeros(15, device=device))


def not_finite(device: torch.device) -> None:
    """Check that what is not finite goes where connections take it, and nowhere else."""
    for value in (float("nan"), float("inf")):
        case = linear(INPUTS, OUTPUTS, 21, some()).to(torch.float32)
        case.x[2, 0, 0, 20], case.delta[5, 0, 0, 20], case.weight[9] = value, value, value
        for found, true in zip(moved(case, device).products(gpu), case.products(reference), strict=True):
            assert torch.equal(found.cpu().isnan(), true.isnan())
            assert torch.equal(found.cpu().isinf(), true.isinf())


def twice(device: torch.device) -> None:
    """Check that the same bits come twice."""
    case = moved(linear(INPUTS, OUTPUTS, 40, some()).to(torch.float32), device)
    first, second = case.products(gpu), case.products(gpu)
    assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(first, second, strict=True))


def layers(dtype: torch.dtype, lead: tuple[int, ...], bias: bool, device: torch.device) -> None:
    """Compare a layer with the dense one, through autograd."""
    torch.manual_seed(0)
    module = nn.Linear(INPUTS, OUTPUTS, bias)
    layer = sparse.Linear.from_dense(module, Topology((OUTPUTS, INPUTS), some())).to(device, dtype)
    dense = layer.to_dense().double()
    x, delta = torch.randn(*lead, INPUTS).to(device, dtype), torch.randn(*lead, OUTPUTS).to(device, dtype)
    mine, true = x.clone().requires_grad_(), x.double().requires_grad_()
    layer(mine).backward(delta)
    dense(true).backward(delta.double())
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(layer(x).double(), dense(x.double()), **tolerance)
    torch.testing.assert_close(mine.grad.double(), true.grad, **tolerance)
    weights = dense.weight.grad.flatten()[layer.topology.positions]
    torch.testing.assert_close(layer.grad().double(), weights, **tolerance)
    assert layer.weight.grad.dtype == dtype
    if bias:
        torch.testing.assert_close(layer.bias.grad.double(), dense.bias.grad, **tolerance)


def armed(device: torch.device) -> None:
    """Find the candidates of the reference in a backward pass that looks for them, and grow some."""
    found = []
    for kernel in (None, "reference"):
        for criterion in (GSE(subset=Uniform()), Gradient()):
            torch.manual_seed(0)
            layer = sparse.Linear.from_dense(nn.Linear(INPUTS, OUTPUTS), Topology((OUTPUTS, INPUTS), some())).to(device)
            layer.pattern.set(layer.topology)
            layer.kernel = kernel
            layer.request_growth(GrowthRequest(criterion, 11, torch.Generator().manual_seed(1)))
            x = torch.randn(33, INPUTS).to(device)
            layer(x).square().sum().backward()
            assert layer.weight.grad is None
            grown = layer.proposal().positions
            layer.rewire(layer.topology.positions[: len(grown)], grown)
            found.append((grown, layer(x)))
    for (mine, y), (true, expected) in zip(found[:2], found[2:], strict=True):
        assert torch.equal(mine, true)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


WIDE, NARROW, HALF = torch.float32, torch.bfloat16, torch.float16
KINDS = [(1, WIDE), (3, WIDE), (33, WIDE), (130, WIDE), (33, NARROW), (3, HALF)]
CASES: dict[str, Callable[[torch.device], None]] = {
    **{f"{items} items, {dtype}": partial(every_batch, items, dtype, items != 3) for items, dtype in KINDS},
    "many programs": many_programs,
    "wide types": wide_types,
    "nothing": nothing,
    "not finite": not_finite,
    "twice": twice,
    "a layer": partial(layers, WIDE, (3, 5), True),
    "a layer of one item, without bias": partial(layers, WIDE, (), False),
    "a layer in bfloat16": partial(layers, NARROW, (20,), True),
    "armed": armed,
}


def main() -> None:
    def interpreted(geometry: object, x: Tensor, name: str | None = None):
        return reference if name == "reference" else gpu

    with patch.object(product, "kernel_for", interpreted):
        for name, case in CASES.items():
            try:
                case(torch.device("cpu"))
            except Exception as error:
                print(f"{name}: {type(error).__name__} {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    sys.exit(main())
