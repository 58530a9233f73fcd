"""Maximum pooling between sparse layers: PyTorch's numbers, in batch-innermost memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dstrun.backend.sparse.pooling import MaxPool2d, _Pool

CASES: dict[str, dict[str, Any]] = {
    "halves": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "holes": {"kernel_size": 2, "stride": 3},
    "dilated": {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 3)},
}


def innermost(x: Tensor) -> Tensor:
    """Lay (N, C, H, W) out as (C, H, W, N)."""
    return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("samples", [1, 37, 128, 144])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_of_pytorch(dtype: torch.dtype, samples: int, case: str) -> None:
    torch.manual_seed(0)
    x = innermost(torch.randint(-3, 3, (samples, 3, 9, 11)).to(dtype))  # many maxima are in two places
    x[0, 1, 2:4, 3:7] = float("nan")
    x[-1, 2] = -float("inf")
    found = []
    for kind in (MaxPool2d, nn.MaxPool2d):
        leaf = x.clone().requires_grad_()
        y = kind(**CASES[case])(leaf)
        y.backward(torch.arange(y.numel()).remainder(7).to(dtype).view(y.shape))
        found.append([y, leaf.grad])
    assert isinstance(found[0][0].grad_fn.next_functions[0][0], _Pool._backward_cls)  # pyright: ignore
    assert all(torch.equal(one.nan_to_num(7), two.nan_to_num(7)) for one, two in zip(*found, strict=True))
    assert found[0][0].permute(1, 2, 3, 0).is_contiguous()


@pytest.mark.parametrize(
    "pool", [{"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 2, "return_indices": True}, {"kernel_size": 17}]
)
def test_the_rest_is_left_to_pytorch(pool: dict[str, Any]) -> None:
    x = innermost(torch.randn(4, 3, 9, 9))
    if pool["kernel_size"] > 9:
        with pytest.raises(RuntimeError, match="too small"):
            MaxPool2d(**pool)(x)
        return
    for one, two in zip(MaxPool2d(**pool)(x), nn.MaxPool2d(**pool)(x), strict=True):
        assert torch.equal(one, two)
