from __future__ import annotations

import pytest
import torch

from dstrun.backend.sparse.kernel.layout import batch_innermost

SHAPES = [(128, 16, 5, 4), (1, 3, 7, 9), (33, 17, 3, 3), (257, 65, 1, 1), (16, 16, 1, 1), (40, 1, 9, 9), (0, 3, 4, 4)]
TYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_torch(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randn(shape).to(dtype).to(memory_format=layout).permute(1, 2, 3, 0)
    y = batch_innermost(x)
    assert y.is_contiguous()
    assert torch.equal(y, x)


def test_items_of_rows() -> None:
    x = torch.randn(300, 70)
    y = batch_innermost(x.movedim(-1, 0).reshape(70, 1, 1, 300))
    assert y.is_contiguous()
    assert torch.equal(y[:, 0, 0], x.t())


def test_what_lies_right_is_not_copied() -> None:
    x = torch.randn(3, 4, 5, 6)
    assert batch_innermost(x) is x


@pytest.mark.parametrize("view", ["step", "transposed", "expanded"])
def test_other_layouts(view: str) -> None:
    x = torch.randn(6, 8, 10, 12)
    views = {
        "step": x[:, ::2, :, ::3],
        "transposed": x.transpose(0, 2),
        "expanded": x[:, :, :, :1].expand(6, 8, 10, 20),
    }
    y = batch_innermost(views[view])
    assert y.is_contiguous()
    assert torch.equal(y, views[view])
