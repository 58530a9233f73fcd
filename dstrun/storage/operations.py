"""Operations that keep less for the backward pass than PyTorch's, with the same results and gradients.

Each stands in the place of functions that a network calls (``OPERATIONS``), gets the pass that is on, the function and
what it is called with, and may offer the pass to make its result again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dstrun.backend import dropout, synchronized
from dstrun.backend.sparse import normalization
from dstrun.backend.sparse.kernel import layout
from dstrun.storage.form import pack_bits, sift, unpack_bits
from dstrun.storage.held import is_dense

if TYPE_CHECKING:
    from dstrun.storage.activations import Pass

Function = Callable[..., Any]


class Flags(NamedTuple):
    """A flag for every number of a dense tensor, eight a byte, in the order of its memory.

    Attributes:
        bits: uint8.
        size: of the tensor.
        stride: of the tensor.
    """

    bits: Tensor
    size: Sequence[int]
    stride: Sequence[int]

    @classmethod
    def of(cls, flags: Tensor) -> Flags:
        """Pack a dense tensor of bool."""
        return cls(pack_bits(flags.as_strided((flags.numel(),), (1,))), flags.shape, flags.stride())

    def tensor(self) -> Tensor:
        """Return the flags: bool."""
        return unpack_bits(self.bits, torch.Size(self.size).numel()).as_strided(self.size, self.stride)

    def sift(self, x: Tensor) -> Tensor:
        """Return numbers where there is a flag, else 0, in the layout that PyTorch's rectification gives gradients."""
        if x.stride() != self.stride:
            return torch.ops.aten.threshold_backward(x, self.tensor().to(x.dtype), 0)
        flat = x.as_strided((x.numel(),), (1,), x.storage_offset())
        return sift(flat, self.bits).as_strided(self.size, self.stride)


class _Rectify(torch.autograd.Function):
    """ReLU; keeps which numbers pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool, kept: list[Flags]) -> Tensor:
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(x)
        _save(ctx, Flags.of(y.le(0).logical_not_()), kept)  # NaN passes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return _saved(ctx).sift(delta), None, None


def _save(ctx: Any, flags: Flags, kept: list[Flags]) -> None:
    """Save flags for the backward pass, and hand them over for making a result again."""
    kept.append(flags)
    ctx.layout = flags.size, flags.stride
    ctx.save_for_backward(flags.bits)


def _saved(ctx: Any) -> Flags:
    return Flags(*ctx.saved_tensors, *ctx.layout)


def rectify(here: Pass, function: Function, x: Tensor, inplace: bool = False) -> Tensor:
    """Rectify."""
    inplace = inplace or function in (torch.relu_, Tensor.relu_)
    if not x.requires_grad or not is_dense(x):
        return function(x, inplace) if function is functional.relu else function(x)
    parent, kept = here.find(x), []
    y = _Rectify.apply(x, inplace, kept)
    if parent is not None:
        here.offer(y, parent, torch.relu if here.exact else kept[0].sift)
    return y


class _Drop(torch.autograd.Function):
    """Dropout on given draws; keeps which numbers stay."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drawn: Tensor, p: float, inplace: bool, kept: list[Flags]) -> Tensor:
        _save(ctx, Flags.of(drawn.bool()), kept)
        ctx.p, ctx.dtype = p, drawn.dtype
        drawn.div_(1 - p)
        if inplace:
            ctx.mark_dirty(x)
            return x.mul_(drawn)
        return x * drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return delta * _noise(_saved(ctx), ctx.dtype, ctx.p), None, None, None, None


class _FusedDrop(torch.autograd.Function):
    """Dropout as GPUs have it, in one kernel; keeps which numbers stay."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, kept: list[Flags]) -> Tensor:
        y, stays = torch.native_dropout(x, p, True)
        _save(ctx, Flags.of(stays), kept)
        ctx.p = p
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return torch.ops.aten.native_dropout_backward(delta, _saved(ctx).tensor(), 1 / (1 - ctx.p)), None, None


def _noise(stays: Flags, dtype: torch.dtype, p: float) -> Tensor:
    """Return what dropout multiplies by."""
    return stays.tensor().to(dtype).div_(1 - p)


def drop(
    here: Pass, function: Function, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Drop numbers at random, the same ones as PyTorch."""
    if not training or p in (0, 1) or not x.requires_grad or not is_dense(x):
        extra = {"inplace": inplace} if inplace else {}
        return function(x, p, training, **extra)
    parent, kept = here.find(x), []
    if x.device.type == "cuda" and not inplace:
        y = _FusedDrop.apply(x, p, kept)
        if parent is not None:
            here.offer(y, parent, lambda t: _fused_again(t, kept[0], p))
        return y
    y = _Drop.apply(x, torch.empty_like(x).bernoulli_(1 - p), p, inplace, kept)
    return _drop_again(here, parent, y, kept, x.dtype, p)


def _fused_again(x: Tensor, stays: Flags, p: float) -> Tensor:
    """Drop the same numbers as ``torch.native_dropout`` did on a GPU, bit for bit: it scales in 32 bits."""
    scale = torch.ones(()) / torch.tensor(1 - p, dtype=torch.float32)
    return torch.ops.aten.native_dropout_backward(x, stays.tensor(), scale.item())


def drop_drawn(here: Pass, _function: Function, x: Tensor, drawn: Tensor, p: float) -> Tensor:
    """Drop what was drawn (``dstrun.backend.dropout.dropped``)."""
    if not x.requires_grad or not is_dense(drawn):
        return _function(x, drawn, p)
    parent, kept = here.find(x), []
    return _drop_again(here, parent, _Drop.apply(x, drawn, p, False, kept), kept, drawn.dtype, p)


def _drop_again(here: Pass, parent: Any, y: Tensor, kept: list[Flags], dtype: torch.dtype, p: float) -> Tensor:
    if parent is not None:
        here.offer(y, parent, lambda t: t * _noise(kept[0], dtype, p))
    return y


class _Pool(torch.autograd.Function):
    """2-D max pooling; keeps where in its window each maximum is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[Any, ...]) -> Tensor:
        kernel, stride, padding, dilation, ceil = window
        y, at = functional.max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil)
        ctx.window, ctx.like = window, (x.shape, torch.channels_last if _innermost(x) else torch.contiguous_format)
        at.sub_(_corners(at, x.shape, window))
        down = at.div(x.shape[-1], rounding_mode="floor")
        at.sub_(down, alpha=x.shape[-1]).div_(dilation[1], rounding_mode="floor")
        at.add_(down.div_(dilation[0], rounding_mode="floor"), alpha=kernel[1])
        ctx.save_for_backward(at.to(torch.uint8))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        kernel, stride, padding, dilation, ceil = ctx.window
        shape, order = ctx.like
        at = place.to(torch.int64)
        down = at.div(kernel[1], rounding_mode="floor")
        at.sub_(down, alpha=kernel[1]).mul_(dilation[1]).add_(down, alpha=dilation[0] * shape[-1])
        at.add_(_corners(at, shape, ctx.window))
        dx = torch.empty(shape, dtype=delta.dtype, device=delta.device, memory_format=order)
        backward = torch.ops.aten.max_pool2d_with_indices_backward.grad_input
        return backward(delta, dx, kernel, stride, padding, dilation, ceil, at, grad_input=dx), None  # reads no dx


def _innermost(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _corners(places: Tensor, size: Sequence[int], window: tuple[Any, ...]) -> Tensor:
    """Return where in its plane of that size each window begins: (Ho, Wo) int64; outside, where there is padding."""
    _, stride, padding, *_ = window
    down, across = (torch.arange(places.shape[d], device=places.device) * stride[d] - padding[d] for d in (-2, -1))
    return down[:, None] * size[-1] + across


def pool(
    here: Pass,
    function: Function,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Compute the maxima of windows."""
    kernel, dilation = _pair(kernel_size), _pair(dilation)
    stride, padding = _pair(stride) if stride else kernel, _pair(padding)
    window = kernel, stride, padding, dilation, ceil_mode
    narrow = kernel[0] * kernel[1] > 256 or dilation[1] * (kernel[1] - 1) >= x.shape[-1]
    if return_indices or narrow or not x.requires_grad:
        return function(x, kernel, stride, padding, dilation, ceil_mode, *([True] if return_indices else []))
    return _Pool.apply(x, window)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else [*value] * (2 // len(value))


def normalize_batch(
    here: Pass,
    function: Function,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize channels by the batch; the result can be made again from x, which this saves."""
    if not training or eps <= 0 or x.numel() <= x.shape[1]:
        return function(x, running_mean, running_var, weight, bias, training, momentum, eps)
    fast, apply = torch.backends.cudnn.enabled, torch.ops.aten._batch_norm_impl_index  # what function calls
    y, mean, inverse, *_ = apply(x, weight, bias, running_mean, running_var, True, momentum, eps, fast)
    if (parent := here.find(x)) is not None:
        weight, bias = (None if t is None else t.detach() for t in (weight, bias))
        if here.exact:
            here.offer(y, parent, lambda t: apply(t, weight, bias, None, None, True, 0.0, eps, fast)[0])
        else:
            here.offer(y, parent, _affine(y, mean, inverse, weight, bias))
    return y


def normalize_sparse(
    here: Pass, function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float, *ranks: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels as sparse layers and several processes do (``dstrun.backend``)."""
    y, mean, variance = function(x, weight, bias, eps, *ranks)
    if (parent := here.find(x)) is not None:
        weight, bias, again = weight.detach(), bias.detach(), AGAIN[function]
        if here.exact:
            here.offer(y, parent, lambda t: again(t, weight, bias, eps, mean, variance))
        else:
            here.offer(y, parent, _affine(y, mean, torch.rsqrt(variance + eps), weight, bias))
    return y, mean, variance


def _affine(y: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None) -> Function:
    """Return the function of x that gives y by exact statistics of channels; linear."""
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape, dtype = (-1, *(1,) * (y.dim() - 2)), y.dtype
    return lambda t: torch.addcmul(shift.view(shape), t.to(scale.dtype), scale.view(shape)).to(dtype)


def normalize_layer(
    here: Pass,
    function: Function,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each item; the result can be made again from x, which this saves."""
    if torch.is_autocast_enabled(x.device.type) or x.numel() == 0:  # may change the type of x
        return function(x, normalized_shape, weight, bias, eps)
    y, mean, inverse = torch.native_layer_norm(x, normalized_shape, weight, bias, eps)
    if (parent := here.find(x)) is not None:
        weight, bias = (None if t is None else t.detach() for t in (weight, bias))
        exact = lambda t: torch.native_layer_norm(t, normalized_shape, weight, bias, eps)[0]  # noqa: E731
        here.offer(y, parent, exact if here.exact else _of_items(mean, inverse, weight, bias))
    return y


def _of_items(mean: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None) -> Function:
    """Return the function of x that normalizes each item by exact statistics; linear."""

    def linear(t: Tensor) -> Tensor:
        made = (t - mean) * inverse
        made = made if weight is None else made.mul_(weight)
        return (made if bias is None else made.add_(bias)).to(t.dtype)

    return linear


def normalize_features(here: Pass, function: Function, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each item as sparse layers do (``dstrun.backend.sparse``)."""
    y = function(x, weight, bias, eps)
    if (parent := here.find(x)) is not None:
        weight, bias = weight.detach(), bias.detach()
        variance, mean = torch.var_mean(x.detach().float(), -1, correction=0, keepdim=True)
        linear = _of_items(mean, torch.rsqrt(variance + eps), weight, bias)
        here.offer(y, parent, (lambda t: function(t, weight, bias, eps)) if here.exact else linear)
    return y


def pointwise(here: Pass, function: Function, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Apply a function that saves x, and whose result can so be made again where x is kept whole or rounded."""
    y = function(x, *args, **kwargs)
    saved = not (kwargs.get("inplace") or here.blocks) and y.requires_grad and y.dtype == x.dtype
    if saved and (parent := here.find(x)) is not None:
        here.offer(y, parent, lambda t: function(t, *args, **kwargs))
    return y


def lay_out(here: Pass, function: Function, x: Tensor) -> Tensor:
    """Lay activations out for sparse layers, which save the result; it can be made again from what they lay in."""
    y = function(x)
    if y is not x and (parent := here.find(x)) is not None:
        here.offer(y, parent, function)
    return y


AGAIN: dict[Function, Function] = {
    normalization.normalized: normalization.renormalized,
    synchronized.normalized: synchronized.renormalized,
}
"""What gives the same result as a normalization, by the statistics that it gave."""
OPERATIONS: dict[Function, Function] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), rectify),
    **dict.fromkeys((functional.dropout, torch.dropout), drop),
    dropout.dropped: drop_drawn,
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), pool),
    functional.batch_norm: normalize_batch,
    **dict.fromkeys(AGAIN, normalize_sparse),
    functional.layer_norm: normalize_layer,
    normalization.normalized_features: normalize_features,
    layout.batch_innermost: lay_out,
    **dict.fromkeys((functional.gelu, functional.silu, functional.mish, functional.hardswish), pointwise),
    **dict.fromkeys((functional.leaky_relu, functional.hardtanh, functional.elu, functional.softplus), pointwise),
}
"""What is called in place of functions of PyTorch and of this package."""
WITHIN = {layout.batch_innermost}
"""Those that are called inside an ``autograd.Function``, where gradients are off."""
