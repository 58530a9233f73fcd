"""Dropout that draws by logical position: the same seed drops the same numbers whatever their layout in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


class Dropout(nn.Dropout):
    """PyTorch's, which draws in the order of memory, with its draws for contiguous inputs on every layout."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        if not self.training or self.p in (0, 1) or input.is_contiguous():
            return super().forward(input)
        kept = torch.empty(input.shape, dtype=input.dtype, device=input.device).bernoulli_(1 - self.p)
        return dropped(input, kept, self.p)


def dropped(input: Tensor, kept: Tensor, p: float) -> Tensor:
    """Drop what was drawn, and scale the rest.

    As functions of PyTorch, it can be replaced (``torch.overrides``).

    Args:
        input: any shape.
        kept: of the same shape, 0 where a number is dropped, else 1; overwritten.
        p: the share that is dropped.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(dropped, (input,), input, kept, p)
    return input * kept.div_(1 - p)
