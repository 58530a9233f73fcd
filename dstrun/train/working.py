"""Weights in 16 bits beside those in 32, cast together: autocast casts each by itself, and each gradient back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Modules whose parameters autocast casts; not kinds derived from them, which may use them otherwise."""


class Working:
    """A network that computes with weights in 16 bits, under autocast: the numbers are those of autocast alone.

    Args:
        model: the network; gradients reach its parameters in 32 bits.
        dtype: of the products.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        owners = {name for name, module in model.named_modules() if type(module) in KINDS}
        named = {name: p for name, p in model.named_parameters() if p.dtype == torch.float32}
        self.named = {name: p for name, p in named.items() if name.rpartition(".")[0] in owners}

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the network's output."""
        lower = _Cast.apply(self.dtype, *self.named.values())
        return functional_call(self.model, dict(zip(self.named, lower, strict=True)), (x,))


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # what the network has not used gets no gradient
        ctx.save_for_backward(*weights)
        return tuple(_copied(list(weights), [torch.empty_like(weight, dtype=dtype) for weight in weights]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [(i, g) for i, g in enumerate(gradients) if g is not None]
        found: list[Tensor | None] = [None] * len(gradients)
        like = [torch.empty_like(ctx.saved_tensors[i]) for i, _ in there]
        for (i, _), whole in zip(there, _copied([g for _, g in there], like), strict=True):
            found[i] = whole
        return None, *found


def _copied(sources: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    if targets:
        torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]
    return targets
