"""Batch normalization that is computed when its result is first used, in one pass with what follows.

Batch normalization, an addition and a ReLU in sequence become one pass over the activations, in any network: the
operations are recorded as they are called, so the network's code does not matter. Any other operation gets the result
computed, as a plain tensor with the same values.

Shape letters: C channels, H rows, W columns, N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from dstrun.backend.sparse.kernel.call import array, threads
from dstrun.backend.sparse.kernel.layout import batch_innermost
from dstrun.backend.sparse.kernel.normalize import normalize, normalize_backward

RECTIFY = {functional.relu, torch.relu, Tensor.relu}
RECTIFY_IN_PLACE = {torch.relu_, Tensor.relu_, functional.relu_}
ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
IN_PLACE = {Tensor.add_, Tensor.__iadd__}
LOOKS = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad")),
    *(getattr(Tensor, name) for name in ("dim", "size", "stride", "numel", "is_floating_point", "is_contiguous")),
}
"""Functions that read metadata and no values."""


class Affine(NamedTuple):
    """A normalization by the statistics of a batch.

    Attributes:
        weight: (C,).
        bias: (C,).
        epsilon: added to the variance.
        mean: (C,) float32.
        variance: (C,) float32.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float
    mean: Tensor
    variance: Tensor


class Deferred(Tensor):
    """A normalized tensor (N, C, H, W), batch-innermost, that is computed on first use.

    It is part of the autograd graph, for functions that bypass ``__torch_function__``.

    Attributes:
        x: the input of the normalization.
        affine: its statistics and parameters.
        other: a tensor that is added, or ``None``.
        rectified: whether ReLU follows.
        now: the result of an operation that changed this tensor in place, if any.
    """

    x: Tensor
    affine: Affine
    other: Tensor | None
    rectified: bool
    now: Deferred | None
    _made: Tensor | None
    _versions: list[tuple[Tensor, int]]

    @classmethod
    def of(cls, x: Tensor, affine: Affine, other: Tensor | None = None, rectified: bool = False) -> Deferred:
        """Defer a normalization, with what follows it."""
        with torch._C.DisableTorchFunctionSubclass():
            made = _Stand.apply(x, affine.weight, affine.bias, other, affine, rectified)
        made.x, made.affine, made.other, made.rectified = x, affine, other, rectified
        made.now = made._made = None
        made._versions = [(t, t._version) for t in (x, other) if t is not None]
        return made

    @property
    def last(self) -> Deferred:
        """This tensor, after all in-place operations."""
        return self if self.now is None else self.now.last

    def tensor(self) -> Tensor:
        """Return the values, computed once."""
        last = self.last
        if last._made is None:
            if any(t._version != version for t, version in last._versions):
                raise RuntimeError(
                    "a tensor was changed in place after it was normalized or added, and before the result was used: "
                    "change a copy, or use the result first"
                )
            with torch.enable_grad():  # as where it was called
                last._made = finished(last.x, last.affine, last.other, last.rectified)
        return last._made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LOOKS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        follows = FOLLOWS.get(func)
        made = follows(func, *args, **kwargs) if follows else None
        if made is not None:
            return made
        args, kwargs = tree_map_only(Deferred, Deferred.tensor, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Deferred, lambda x: x.tensor().detach(), (args, kwargs or {}))
        return func(*args, **kwargs)


def _rectify(func: Any, x: Deferred, inplace: bool = False) -> Deferred | None:
    """Defer ReLU."""
    x = x.last
    if x._made is not None:
        return None
    return _become(x, Deferred.of(x.x, x.affine, x.other, True), inplace or func in RECTIFY_IN_PLACE)


def _add(func: Any, one: Any, two: Any, *more: Any, **kwargs: Any) -> Deferred | None:
    """Defer the addition of a tensor of the same shape and layout."""
    one, two = (x.last if isinstance(x, Deferred) else x for x in (one, two))
    if more or kwargs or not (_takes(one, two) or (func not in IN_PLACE and _takes(two, one))):
        return None
    if not _takes(one, two):
        one, two = two, one
    two = two.tensor() if isinstance(two, Deferred) else two
    return _become(one, Deferred.of(one.x, one.affine, two), func in IN_PLACE)


def _takes(one: Any, two: Any) -> bool:
    """Return whether an addition can be deferred."""
    if not isinstance(one, Deferred) or one._made is not None or one.other is not None or one.rectified:
        return False
    with torch._C.DisableTorchFunctionSubclass():
        return (
            isinstance(two, Tensor)
            and (two.shape, two.stride(), two.dtype) == (one.shape, one.stride(), one.dtype)
            and two.device == one.device
        )


def _become(x: Deferred, made: Deferred, inplace: bool) -> Deferred:
    """Return the result of an operation; after an in-place one, the operand refers to it too."""
    if inplace:
        x.now = made
        with torch._C.DisableTorchFunctionSubclass():
            stand: Any = x.grad_fn
        stand.changed = True
    return made


FOLLOWS: dict[Any, Callable[..., Deferred | None]] = {
    **dict.fromkeys((*RECTIFY, *RECTIFY_IN_PLACE), _rectify),
    **dict.fromkeys(ADD, _add),
}
"""Operations that can be deferred too."""


def finished(x: Tensor, affine: Affine, other: Tensor | None = None, rectified: bool = False) -> Tensor:
    """Normalize a batch-innermost tensor (N, C, H, W), add another of the same layout, and apply ReLU."""
    return _Finish.apply(x, affine.weight, affine.bias, other, affine, rectified)


class _Finish(torch.autograd.Function):
    """``finished`` and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, affine: Affine, rectified: bool
    ) -> Tensor:
        y = _numbers(x, affine, other, rectified)
        ctx.affine, ctx.rectified, ctx.adds = affine._replace(weight=None, bias=None), rectified, other is not None
        ctx.save_for_backward(x, weight, bias, y if rectified and other is not None else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, y = ctx.saved_tensors
        affine = ctx.affine._replace(weight=weight, bias=bias)
        return (*_gradients(x, affine, y, ctx.rectified, ctx.adds, delta), None, None)


class _Stand(torch.autograd.Function):
    """Placeholder of the result, with its gradient for functions that bypass ``__torch_function__``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, affine: Affine, rectified: bool
    ) -> Tensor:
        ctx.affine, ctx.rectified, ctx.changed = affine._replace(weight=None, bias=None), rectified, False
        ctx.save_for_backward(x, weight, bias, other)
        return Tensor._make_wrapper_subclass(Deferred, x.shape, strides=x.stride(), dtype=x.dtype, device=x.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.changed:
            raise RuntimeError("a normalized tensor was changed in place: use what the operation returned")
        x, weight, bias, other = ctx.saved_tensors
        affine = ctx.affine._replace(weight=weight, bias=bias)
        y = _numbers(x, affine, other, ctx.rectified) if ctx.rectified and other is not None else None
        return (*_gradients(x, affine, y, ctx.rectified, other is not None, delta), None, None)


def _numbers(x: Tensor, affine: Affine, other: Tensor | None, rectified: bool) -> Tensor:
    """Compute the result."""
    y = torch.empty_like(x)  # as x lies, and no view: what follows may work in place
    weight, bias, mean, variance = (
        array(t.float()) for t in (affine.weight, affine.bias, affine.mean, affine.variance)
    )
    threads()
    normalize(
        _flat(x), _flat(x[:0] if other is None else other), weight, bias, affine.epsilon, mean, variance, rectified,
        _flat(y),
    )  # fmt: skip
    return y


def _gradients(
    x: Tensor, affine: Affine, y: Tensor | None, rectified: bool, adds: bool, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Compute the gradients of x, weight, bias and what was added."""
    weight, bias, mean, variance = (
        array(t.float()) for t in (affine.weight, affine.bias, affine.mean, affine.variance)
    )
    delta = batch_innermost(delta.permute(1, 2, 3, 0))
    dx = torch.empty_like(delta)
    dother = (torch.empty_like(delta) if rectified else delta) if adds else None
    dw, db = torch.empty_like(affine.mean), torch.empty_like(affine.mean)
    none = array(delta[:0])
    threads()
    normalize_backward(
        _flat(x), none if y is None else _flat(y), array(delta), weight, bias, affine.epsilon, mean, variance,
        rectified, array(dx), array(dother) if dother is not None and rectified else none, array(dw), array(db),
    )  # fmt: skip
    back = None if dother is None else dother.permute(3, 0, 1, 2)
    return dx.permute(3, 0, 1, 2), dw.to(affine.weight.dtype), db.to(affine.bias.dtype), back


def _flat(x: Tensor) -> Any:
    """View (N, C, H, W) as it lies, (C, H, W, N), as a flat array."""
    return array(x.permute(1, 2, 3, 0))
