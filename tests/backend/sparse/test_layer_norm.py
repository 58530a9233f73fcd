"""Layer normalization and attention between sparse layers: PyTorch's numbers, in batch-innermost memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.heads import Unflatten
from dstrun.backend.sparse.layer import Linear, sparsify
from dstrun.backend.sparse.normalization import LayerNorm, features_outermost
from dstrun.model.vit import ViT

SHAPES = [(128, 3, 40), (2, 3), (33, 96), (5, 2, 67, 7)]


def outermost(x: Tensor) -> Tensor:
    """Lay (..., D) out as (D, ...)."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


def pair(size: int, **settings: Any) -> tuple[LayerNorm, nn.LayerNorm]:
    """Make ours, and PyTorch's in float64 with the same parameters."""
    ours = LayerNorm(size, **settings)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs = nn.LayerNorm(size, **settings)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.double()


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"elementwise_affine": False, "eps": 0.1}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_of_pytorch(dtype: torch.dtype, shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = pair(shape[-1], **settings)
    x, delta = outermost(5 + torch.randn(shape).to(dtype)), torch.randn(shape).to(dtype)
    found = []
    for module, kind in ((ours, dtype), (theirs, torch.float64)):
        leaf = x.detach().to(kind).requires_grad_()
        y = module(leaf)
        assert isinstance(y, Deferred) == (module is ours)
        y = y * 1
        y.backward(delta.to(kind))
        found.append([y.detach(), leaf.grad, *(parameter.grad for parameter in module.parameters())])
    assert all(map(features_outermost, found[0][:2]))
    close = 1e-5 if dtype == torch.float32 else 2e-2
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=close, atol=close * float(two.abs().max()))
    with torch.no_grad():
        assert torch.equal(ours(x), found[0][0])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_layer_makes_its_own_input_with_the_same_bits_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    norm, (layer,) = pair(40)[0], sparsify(nn.Sequential(nn.Linear(40, 24)), [100])
    assert isinstance(layer, Linear)
    x, delta = outermost(torch.randn(300, 5, 40)), torch.randn(300, 5, 24)
    found = []
    for together, count in ((True, 1), (True, 2), (False, 2)):
        torch.set_num_threads(count)
        ours, above, leaf = copy.deepcopy(norm), copy.deepcopy(layer), x.detach().requires_grad_()
        y = ours(leaf)
        z = above(y if together else y.tensor())
        assert (y._made is None) == together
        z.backward(delta)
        found.append([z, leaf.grad, *(p.grad for p in (*ours.parameters(), *above.parameters()))])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_what_lies_otherwise_is_left_to_pytorch() -> None:
    plain = torch.randn(6, 5, 4)
    for module, x in (
        (LayerNorm(4), plain),
        (LayerNorm((5, 4)), outermost(plain)),
        (LayerNorm(4), outermost(plain[:1, :1])),
    ):
        assert type(module(x)) is Tensor
    with pytest.raises(RuntimeError, match="normalized_shape"):
        LayerNorm(3)(outermost(plain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_features_are_laid_side_by_side_before_they_are_split_into_heads(dtype: torch.dtype) -> None:
    x = outermost(torch.randn(9, 5, 24, dtype=dtype)).detach().requires_grad_()
    y = Unflatten(-1, (2, 12))(x)
    assert torch.equal(y, x.unflatten(-1, (2, 12)))
    assert y.is_contiguous() == (dtype != torch.float64)
    delta = torch.randn_like(y)
    y.backward(delta)
    assert torch.equal(x.grad, delta.flatten(-2))  # pyright: ignore[reportArgumentType]


def test_the_stream_of_a_transformer_keeps_its_layout_both_ways() -> None:
    torch.manual_seed(0)
    model = ViT(width=0.25).build((3, 16, 16), 10)
    sparsify(model, [max(1, m.weight.numel() // 5) for m in model.modules() if type(m) is nn.Linear])
    seen: dict[str, tuple[bool, bool]] = {}

    def look(name: str, x: Tensor) -> None:
        x.register_hook(lambda delta: seen.__setitem__(name, (features_outermost(x), features_outermost(delta))))

    for name, block in model.get_submodule("blocks").named_children():
        block.register_forward_hook(lambda _block, x, _y, name=name: look(name, x[0]))
    model(torch.randn(4, 3, 16, 16)).sum().backward()
    assert seen == {name: (True, True) for name in "0123"}
