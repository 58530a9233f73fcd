"""Layers whose weight is stored in 16 bits and multiplies float32 numbers.

A pass needs the weight in float32. Autograd would keep that copy of every layer until the backward pass, which is all
that 16 bits save and as much again: so it is made twice, in the forward and in the backward pass, and one layer's at a
time. The gradient has the type of the weight, as PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dstrun.layer.interface import SparseLayer, prunable, sharing
from dstrun.storage.rounding import TYPES


class Linear(nn.Linear):
    """``nn.Linear`` of any floating type on any other."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        weight = self.weight
        if not _differ(weight, input):
            return super().forward(input)
        return _Linear.apply(input, weight, self.bias)  # type: ignore[return-value]


class _Convolution(nn.Module):
    """What convolutions share: zero padding, the same on both sides."""

    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _differ(weight, input):
            return super()._conv_forward(input, weight, bias)  # type: ignore[misc]
        if input.dim() < weight.dim():
            return self._conv_forward(input[None], weight, bias)[0]
        padding = self._reversed_padding_repeated_twice[::-2]
        steps = (self.stride, padding, self.dilation, False, (0,) * len(padding), self.groups)
        return _Convolved.apply(input, weight, bias, steps)  # type: ignore[return-value]


class Conv1d(_Convolution, nn.Conv1d):
    """``nn.Conv1d`` of any floating type on any other."""


class Conv2d(_Convolution, nn.Conv2d):
    """``nn.Conv2d`` of any floating type on any other."""


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Linear, nn.Conv1d: Conv1d, nn.Conv2d: Conv2d}


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (delta,), (x, weight) = grads, ctx.saved_tensors
        dx = dw = db = None
        rows = delta.reshape(-1, delta.shape[-1])
        if ctx.needs_input_grad[0]:
            dx = delta @ weight.to(delta.dtype)
        if ctx.needs_input_grad[1]:
            dw = (rows.t() @ x.reshape(-1, x.shape[-1])).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            db = rows.sum(0)
        return dx, dw, db


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, steps: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = steps
        return torch.convolution(x, weight.to(x.dtype), bias, *steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (delta,), (x, weight) = grads, ctx.saved_tensors
        dx, dw, db = torch.ops.aten.convolution_backward(
            delta, x, weight.to(x.dtype), [weight.shape[0]], *ctx.steps, list(ctx.needs_input_grad[:3])
        )
        return dx, None if dw is None else dw.to(weight.dtype), db, None


def _differ(weight: Tensor, x: Tensor) -> bool:
    """Return whether a weight has another type than what it multiplies, and autocast sees to neither."""
    return weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type)


def stored_weights(model: nn.Module, layers: Iterable[SparseLayer]) -> list[Tensor]:
    """List the weights that are stored otherwise: those of the layers, or of all prunable ones where none is sparse.

    All else, biases and normalization above all, stays in float32: it is little.
    """
    return [layer.weight for layer in layers] or [module.weight for _, module in prunable(model)]


def store(model: nn.Module, layers: Iterable[SparseLayer], kind: str) -> None:
    """Round the weights of layers to 16 bits, to the nearest, and let the layers compute with them.

    Dense layers of a kind of their own keep float32, as what they compute is not known. To be called before weights
    are parametrized.

    Args:
        model: changed in place.
        layers: its sparse layers.
        kind: the setting ``weights``; with ``fp32`` nothing changes.
    """
    dtype = TYPES[kind]
    if dtype == torch.float32:
        return
    for layer in layers:
        if isinstance(layer, nn.Module):
            layer.weight.data = layer.weight.data.to(dtype)
    for _, module in prunable(model):
        together = [module, *sharing(model, module)]
        if all(type(one) in KINDS for one in together):
            module.weight.data = module.weight.data.to(dtype)
            for one in together:
                one.__class__ = KINDS[type(one)]
