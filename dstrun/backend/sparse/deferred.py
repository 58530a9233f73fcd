"""Normalized activations that are not computed before something looks at them.

Batch normalization, an addition and a rectification that follow each other are then one pass over the activations, in
any network and however it is written: what comes between two sparse layers is seen as it is called. Anything else that
looks at the result gets it computed, as a plain tensor with the same numbers.

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
"""What only looks at how a tensor is laid out."""


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
    """A normalized tensor (N, C, H, W), batch-innermost, that is computed when something looks at its numbers.

    It stands in the graph of gradients as any tensor does, for functions that do not ask it (``__torch_function__``).

    Attributes:
        x: what is normalized.
        affine: how.
        other: what is added, or ``None``.
        rectified: whether what is below 0 becomes 0.
        now: what has become of it, if something worked on it in place.
    """

    x: Tensor
    affine: Affine
    other: Tensor | None
    rectified: bool
    now: Deferred | None
    _made: Tensor | None

    @classmethod
    def of(cls, x: Tensor, affine: Affine, other: Tensor | None = None, rectified: bool = False) -> Deferred:
        """Defer a normalization, with what follows it."""
        with torch._C.DisableTorchFunctionSubclass():
            made = _Stand.apply(x, affine.weight, affine.bias, other, affine, rectified)
        made.x, made.affine, made.other, made.rectified = x, affine, other, rectified
        made.now = made._made = None
        return made

    @property
    def last(self) -> Deferred:
        """Itself, or what operations in place have made of it."""
        return self if self.now is None else self.now.last

    def tensor(self) -> Tensor:
        """Return the numbers, computed once."""
        last = self.last
        if last._made is None:
            with torch.enable_grad():  # as where it was put off
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
    """Rectify later."""
    x = x.last
    if x._made is not None:
        return None
    return _become(x, Deferred.of(x.x, x.affine, x.other, True), inplace or func in RECTIFY_IN_PLACE)


def _add(func: Any, one: Any, two: Any, *more: Any, **kwargs: Any) -> Deferred | None:
    """Add later what lies alike."""
    one, two = (x.last if isinstance(x, Deferred) else x for x in (one, two))
    if more or kwargs or not (_takes(one, two) or (func not in IN_PLACE and _takes(two, one))):
        return None
    if not _takes(one, two):
        one, two = two, one
    two = two.tensor() if isinstance(two, Deferred) else two
    return _become(one, Deferred.of(one.x, one.affine, two), func in IN_PLACE)


def _takes(one: Any, two: Any) -> bool:
    """Return whether something can be added later."""
    if not isinstance(one, Deferred) or one._made is not None or one.other is not None or one.rectified:
        return False
    with torch._C.DisableTorchFunctionSubclass():
        return (
            isinstance(two, Tensor)
            and (two.shape, two.stride(), two.dtype) == (one.shape, one.stride(), one.dtype)
            and two.device == one.device
        )


def _become(x: Deferred, made: Deferred, inplace: bool) -> Deferred:
    """Return what an operation made, which worked in place or not."""
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
"""What can be put off as well."""


def finished(x: Tensor, affine: Affine, other: Tensor | None = None, rectified: bool = False) -> Tensor:
    """Normalize a tensor (N, C, H, W) that lies batch-innermost; add another of its kind, and rectify."""
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
    """What stands for the result until it is computed, and gets its gradient where something else looked at it."""

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
