"""Layers with 16-bit weights compute what layers with the same weights in 32 bits do, and keep no copy of them."""

from __future__ import annotations

import pytest
import torch
from saved import saved_for_backward
from torch import nn

from dstrun.storage.product import KINDS, store

CASES = [
    (nn.Linear(6, 5), (3, 4, 6)),
    (nn.Linear(6, 5, bias=False), (6,)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), dilation=2, groups=2), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, (3, 5), padding="same", bias=False), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding="valid"), (4, 9, 8)),
    (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
]


@pytest.mark.parametrize(("module", "shape"), CASES, ids=[str(module) for module, _ in CASES])
def test_it_computes_and_differentiates_as_in_32_bits(module: nn.Module, shape: tuple[int, ...]) -> None:
    plain, x = module.double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    plain.weight.data = plain.weight.data.bfloat16().double()
    stored = type(plain).__new__(KINDS[type(plain)])
    stored.__dict__ = {**plain.__dict__, "_parameters": {**plain._parameters}}
    stored.weight = nn.Parameter(plain.weight.detach().bfloat16())
    x2 = x.detach().requires_grad_()
    with saved_for_backward([stored.weight]) as saved:
        y = stored(x2)
    assert sum(saved.values()) == x.nbytes  # the input alone
    torch.testing.assert_close(y, plain(x))
    delta = torch.randn_like(y)
    inputs = [p for p in (plain.weight, plain.bias) if p is not None]
    found = torch.autograd.grad(y, [x2, stored.weight, *inputs[1:]], delta, create_graph=True)
    wanted = torch.autograd.grad(plain(x), [x, *inputs], delta, create_graph=True)
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close([g.double() for g in found], list(wanted), rtol=1e-2, atol=1e-2)
    again = torch.autograd.grad(found[0].square().sum(), [x2, stored.weight], allow_unused=True)
    truly = torch.autograd.grad(wanted[0].square().sum(), [x, plain.weight], allow_unused=True)
    assert again[1] is not None
    torch.testing.assert_close(again[1].double(), truly[1], rtol=2e-2, atol=2e-2)


def test_what_is_no_plain_layer_keeps_32_bits() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), Own(2, 2), nn.Linear(2, 2))
    store(model, [], "bf16")
    kinds = [p.dtype for p in model.parameters()]
    half, full = torch.bfloat16, torch.float32
    assert kinds == [half, full, full, full, full, full, half, full]
