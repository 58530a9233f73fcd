"""Normalization, addition and rectification in one pass: the same numbers as one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.layer import Conv2d
from dstrun.backend.sparse.normalization import BatchNorm2d

SHAPES = [(1, 1, 3, 5), (128, 4, 3, 3), (7, 5, 1, 1), (33, 2, 9, 31)]
FOLLOWING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nothing": lambda y, _: y,
    "relu": lambda y, _: F.relu(y),
    "relu in place": lambda y, _: y.relu_(),
    "sum": lambda y, other: y + other,
    "sum in place": lambda y, other: y.add_(other),
    "relu of a sum": lambda y, other: F.relu(other + y, inplace=True),
    "relu of its sum": lambda y, other: torch.relu(torch.add(y, other)),
}


def innermost(x: Tensor) -> Tensor:
    """Lay (N, C, H, W) out as (C, H, W, N)."""
    return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def normalization(channels: int) -> BatchNorm2d:
    module = BatchNorm2d(channels)
    nn.init.uniform_(module.weight, -2, 2)
    nn.init.uniform_(module.bias, -1, 1)
    return module


@pytest.mark.parametrize("following", FOLLOWING)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_as_one_after_the_other(dtype: torch.dtype, shape: tuple[int, ...], following: str) -> None:
    torch.manual_seed(0)
    module = normalization(shape[1])
    x, other, delta = (innermost(torch.randn(shape, dtype=dtype)) for _ in range(3))
    x[:1, :1, :1] = float("nan") if shape[1] == 5 else 1.0
    found = []
    for together in (True, False):
        ours = copy.deepcopy(module)
        leaves = [t.detach().requires_grad_() for t in (x, other)]
        y = ours(leaves[0])
        assert isinstance(y, Deferred)
        z = FOLLOWING[following](y if together else y.tensor().clone(), leaves[1])
        assert isinstance(z, Deferred) == together
        (z * delta).sum().backward()
        found.append([z * 1, *(leaf.grad for leaf in leaves), ours.weight.grad, ours.bias.grad, ours.running_var])
    for one, two in zip(*found, strict=True):
        assert one is two is None or torch.equal(one.nan_to_num(7), two.nan_to_num(7))


def test_it_is_computed_once_on_first_use() -> None:
    x = innermost(torch.randn(8, 4, 3, 3)).requires_grad_()
    y = BatchNorm2d(4)(x)
    assert (y.shape, y.dtype, y.dim(), y.stride(), y.requires_grad) == (x.shape, x.dtype, 4, x.stride(), True)
    assert y._made is None
    assert type(y * 1) is Tensor
    made = y._made
    assert made is not None
    assert type(F.relu(y)) is Tensor
    assert y._made is made
    with torch.no_grad():
        assert type(BatchNorm2d(4)(x)) is Tensor


def test_what_changed_it_in_place_shows_under_the_old_name() -> None:
    torch.manual_seed(0)
    x, other = (innermost(torch.randn(8, 4, 3, 3)).requires_grad_() for _ in range(2))
    y = BatchNorm2d(4)(x)
    expected = F.relu(y.tensor() + other)
    y = BatchNorm2d(4)(x)
    y += other
    F.relu(y, inplace=True)
    assert torch.equal(y * 1, expected)


def test_what_it_is_computed_from_must_not_change_before() -> None:
    x, other = (innermost(torch.randn(8, 4, 3, 3)) for _ in range(2))
    for changed in (x, other):
        y = F.relu(BatchNorm2d(4)(x) + other)
        changed.add_(1)
        with pytest.raises(RuntimeError, match="changed in place after it was normalized or added"):
            y.sum()


class Doubled(torch.autograd.Function):
    """A function that PyTorch calls without asking its tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return 2 * delta


@pytest.mark.parametrize("following", ["nothing", "relu", "relu of a sum"])
def test_functions_that_do_not_ask_find_it_in_the_graph(following: str) -> None:
    torch.manual_seed(0)
    x, other, delta = (innermost(torch.randn(8, 4, 3, 3)) for _ in range(3))
    found = []
    for call in (Doubled.apply, lambda z: 2 * z):
        leaves = [t.detach().requires_grad_() for t in (x, other)]
        z = call(FOLLOWING[following](BatchNorm2d(4)(leaves[0]), leaves[1]))
        z.backward(delta)
        found.append([z, *(leaf.grad for leaf in leaves)])
    assert all(one is two is None or torch.equal(one, two) for one, two in zip(*found, strict=True))
    y = BatchNorm2d(4)(x.requires_grad_())
    y.relu_()
    with pytest.raises(RuntimeError, match="use what the operation returned"):
        Doubled.apply(y).sum().backward()


def block(x: Tensor, module: BatchNorm2d, layer: nn.Module, twice: bool, together: bool) -> Tensor:
    """Normalize, rectify and convolve, and add the rectified values if ``twice``."""
    y = F.relu(module(x))
    y = y if together else y.tensor().clone()
    z = layer(y)
    return z + 2 * y if twice else z


@pytest.mark.parametrize("twice", [False, True])
def test_a_layer_that_makes_its_own_input_computes_the_same_bits(twice: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(4, 4, 3, padding=1)
    nn.init.sparse_(dense.weight.data.view(4, -1), 0.5)
    layer, module, delta = Conv2d.from_dense(dense), normalization(4), innermost(torch.randn(16, 4, 5, 5))
    x = innermost(torch.randn(16, 4, 5, 5))
    found, kept = [], []
    for together in (True, False):
        ours, leaf, sizes = copy.deepcopy(module), x.clone().requires_grad_(), {}
        layer.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
        ):
            z = block(leaf, ours, layer, twice, together)
        z.backward(delta)
        found.append([z, leaf.grad, layer.weight.grad, layer.bias.grad, ours.weight.grad, ours.bias.grad])
        kept.append(sum(t.shape.numel() >= x.numel() for t in sizes.values()))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert kept == [1, 2]  # x alone, or also what is made of it


def test_a_result_that_changes_later_gives_the_same_gradient() -> None:
    torch.manual_seed(0)
    x, other = (innermost(torch.randn(8, 4, 3, 3)) for _ in range(2))
    found = []
    for changes in (True, False):
        leaves = [t.clone().requires_grad_() for t in (x, other)]
        y = F.relu(BatchNorm2d(4)(leaves[0]) + leaves[1])
        z = y.tensor() if changes else y * 1
        z += 1
        (z * torch.arange(z.numel()).view(z.shape)).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
