"""Modules between layers that look at the whole batch, where every process has a part of it.

Shape letters: N samples here, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import handle_torch_function, has_torch_function_unary

from dstrun.backend.dropout import Dropout, dropped
from dstrun.backend.sparse.normalization import BatchNorm2d
from dstrun.system.ranks import Ranks


def synchronize(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Apply batch normalization and dropout to the whole batch; modules keep their parameters, buffers and state."""
    if ranks.size == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            vars(module).update(plain=type(module), ranks=ranks)
            module.__class__ = FusedBatchNorm if device.type == "cuda" else SynchronizedBatchNorm
        elif isinstance(module, nn.Dropout):
            vars(module).update(plain=type(module), ranks=ranks)
            module.__class__ = SplitDropout


class FusedBatchNorm(nn.SyncBatchNorm):
    """PyTorch's, on GPUs only."""

    plain: type[nn.Module]
    ranks: Ranks
    process_group = None

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return super().forward(x) if self.ranks.parts > 1 else self.plain.forward(self, x)


class SynchronizedBatchNorm(BatchNorm2d):
    """The same on a CPU, for any layout in memory."""

    plain: type[nn.Module]
    ranks: Ranks

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if not self.training or self.ranks.parts == 1:
            return self.plain.forward(self, x)
        weight = x.new_ones(x.shape[1]) if self.weight is None else self.weight
        bias = x.new_zeros(x.shape[1]) if self.bias is None else self.bias
        y, mean, variance = normalized(x, weight, bias, self.eps, self.ranks)
        if self.track_running_stats:
            self._remember(mean, variance, x[:, :1].numel() * self.ranks.parts)
        return y


class SplitDropout(Dropout):
    """Draws for the whole batch, and drops what falls on the samples here."""

    plain: type[nn.Module]
    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        if not self.training or self.p in (0, 1) or self.ranks.parts == 1:
            return self.plain.forward(self, input)
        whole = len(input) * self.ranks.parts
        kept = input.new_empty((whole, *input.shape[1:])).bernoulli_(1 - self.p)[self.ranks.local_slice(whole)]
        return dropped(input, kept, self.p)


def normalized(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the statistics of the whole batch, which are given back too: y, mean, variance.

    As functions of PyTorch, it can be replaced (``torch.overrides``).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(normalized, (x,), x, weight, bias, epsilon, ranks)
    return _Normalize.apply(x, weight, bias, epsilon, ranks)


def renormalized(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, mean: Tensor, variance: Tensor) -> Tensor:
    """Return what ``normalized`` returned with these statistics, bit for bit."""
    inverse = torch.rsqrt(variance + epsilon)
    gap = _wide(x) - _channels(mean, x)
    return torch.addcmul(_channels(bias.to(gap), x), gap, _channels(inverse * weight, x)).to(x.dtype)


class _Normalize(torch.autograd.Function):
    """``normalized`` and its gradients; every process has as many samples."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.ranks, ctx.over = ranks, [dim for dim in range(x.dim()) if dim != 1]
        mean = ranks.average(_wide(x).mean(ctx.over))
        gap = _wide(x) - _channels(mean, x)
        variance = ranks.average(gap.square().mean(ctx.over))
        inverse = torch.rsqrt(variance + epsilon)
        y = torch.addcmul(_channels(bias.to(gap), x), gap, _channels(inverse * weight, x)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        delta = _wide(delta)
        normal = (_wide(x) - _channels(mean, x)) * _channels(inverse, x)
        db, dw = delta.sum(ctx.over), (delta * normal).sum(ctx.over)
        count = x[:, :1].numel()
        shift, slope = ctx.ranks.average(torch.stack([db, dw]) / count)
        dx = (delta - _channels(shift, x) - normal * _channels(slope, x)) * _channels(inverse * weight, x)
        return dx.to(x.dtype), dw.to(weight.dtype), db.to(weight.dtype), None, None


def _wide(x: Tensor) -> Tensor:
    """Return numbers of 16 bits in 32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """View (C,) so that it is broadcast along the channels of x."""
    return vector.view(-1, *(1,) * (x.dim() - 2))
