"""Dropout that draws by logical position: the same seed drops the same numbers whatever their layout in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """PyTorch's, which draws in the order of memory, with its draws for contiguous inputs on every layout."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        if not self.training or self.p in (0, 1) or input.is_contiguous():
            return super().forward(input)
        kept = torch.empty(input.shape, dtype=input.dtype, device=input.device).bernoulli_(1 - self.p)
        return input * kept.div_(1 - self.p)
