"""Normalizations that keep batch-innermost memory, for use between sparse layers.

Shape letters: N samples, C channels, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from dstrun.backend.sparse.affine import Affine, FeatureAffine, features, items, stored
from dstrun.backend.sparse.deferred import Deferred
from dstrun.backend.sparse.kernel.call import array, fits, hollow, threads
from dstrun.backend.sparse.kernel.layout import batch_innermost
from dstrun.backend.sparse.kernel.normalize import moments


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, but fused and without a change of layout where the input lies batch-innermost; same state."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x.tensor() if isinstance(x, Deferred) else x
        if x.dim() != 4 or not fits(x) or not x.permute(1, 2, 3, 0).is_contiguous() or x[:, :1].numel() < 2:
            return super().forward(x)
        weight = x.new_ones(x.shape[1], dtype=torch.float32) if self.weight is None else self.weight
        bias = x.new_zeros(x.shape[1], dtype=torch.float32) if self.bias is None else self.bias
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return _fixed(x, weight, bias, self.running_mean, self.running_var, self.eps)
        if _defers(x):
            mean, variance = _moments(x)
            y = Deferred.of(x, Affine(weight, bias, self.eps, mean, variance))
        else:
            y, mean, variance = normalized(x, weight, bias, self.eps)
        if self.training and self.track_running_stats:
            self._remember(mean, variance, x[:, :1].numel())
        return y

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics of the channels, from ``count`` numbers each."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), share)


class LayerNorm(nn.LayerNorm):
    """PyTorch's, but fused and without a change of layout where the features lie outermost; same state."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        x = input.tensor() if isinstance(input, Deferred) else input
        size = x.shape[-1:]
        if size != self.normalized_shape or x.dim() < 2 or not fits(x) or not features_outermost(x):
            return super().forward(x)
        weight = x.new_ones(size, dtype=torch.float32) if self.weight is None else self.weight
        bias = x.new_zeros(size, dtype=torch.float32) if self.bias is None else self.bias
        if _defers(x):
            if x.grad_fn is not None:
                x.register_hook(_turned)
            return Deferred.of(x, FeatureAffine(weight, bias, self.eps))
        return normalized_features(x, weight, bias, self.eps)


def features_outermost(x: Tensor) -> bool:
    """Return whether (..., D) lies as (D, ...), in more than name."""
    return x.numel() > x.shape[-1] > 1 and x.movedim(-1, 0).is_contiguous()


def _turned(gradient: Tensor) -> Tensor:
    """Lay a gradient (..., D) out with the features outermost.

    That of a residual stream would stay as it came from the stream's end, and every branch would be converted to it.
    """
    if features_outermost(gradient):
        return gradient
    return items(batch_innermost(features(gradient)), gradient.shape[:-1])


def normalized_features(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalize every item (..., D) by the mean and the deviation of its features.

    As functions of PyTorch, it can be replaced (``torch.overrides``).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(normalized_features, (x,), x, weight, bias, epsilon)
    return Deferred.of(x, FeatureAffine(weight, bias, epsilon)).tensor()


def _fixed(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Normalize by given statistics."""
    scale = weight.float() * torch.rsqrt(variance.float() + epsilon)
    shift = bias.float() - mean.float() * scale
    shape = (1, -1, 1, 1)
    return torch.addcmul(shift.view(shape), x.float(), scale.view(shape)).to(x.dtype)


def normalized(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the statistics of the batch, which are given back too: y, mean, variance.

    As functions of PyTorch, it can be replaced (``torch.overrides``).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(normalized, (x,), x, weight, bias, epsilon)
    mean, variance = _moments(x)
    return Deferred.of(x, Affine(weight, bias, epsilon, mean, variance)).tensor(), mean, variance


def renormalized(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, mean: Tensor, variance: Tensor) -> Tensor:
    """Return what ``normalized`` returned with these statistics, bit for bit."""
    return Deferred.of(x, Affine(weight, bias, epsilon, mean, variance)).tensor()


def _defers(x: Tensor) -> bool:
    """Return whether gradients are wanted, and nobody follows what functions of PyTorch are called."""
    return torch.is_grad_enabled() and not has_torch_function_unary(x)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of every channel."""
    mean, variance = x.new_empty((2, x.shape[1]), dtype=torch.float32)
    if not hollow(x):
        moments(array(stored(x)), array(mean), array(variance), threads())
    return mean, variance
