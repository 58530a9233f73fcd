"""Normalization that is computed when its result is first used, in one pass with what follows.

Batch normalization, an addition and a ReLU in sequence become one pass over the activations, in any network: the
operations are recorded as they are called, so the network's code does not matter. Any other operation gets the result
computed, as a plain tensor with the same values. Layer normalization is made by the sparse layer that uses it.

Shape letters: C channels, H rows, W columns, N samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from dstrun.backend.sparse.affine import Affine, FeatureAffine

RECTIFY = {functional.relu, torch.relu, Tensor.relu}
RECTIFY_IN_PLACE = {torch.relu_, Tensor.relu_, functional.relu_}
ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
IN_PLACE = {Tensor.add_, Tensor.__iadd__}
LOOKS = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad")),
    *(getattr(Tensor, name) for name in ("dim", "size", "stride", "numel", "is_floating_point", "is_contiguous")),
}
"""Functions that read metadata and no values."""


class Deferred(Tensor):
    """A normalized tensor (N, C, H, W) or (..., D), batch-innermost, that is computed on first use.

    It is part of the autograd graph, for functions that bypass ``__torch_function__``.

    Attributes:
        x: the input of the normalization.
        affine: its statistics and parameters, and whether ReLU follows.
        other: a tensor that is added, or ``None``.
        now: the result of an operation that changed this tensor in place, if any.
    """

    x: Tensor
    affine: Affine | FeatureAffine
    other: Tensor | None
    now: Deferred | None
    _made: Tensor | None
    _versions: list[tuple[Tensor, int]]

    @classmethod
    def of(cls, x: Tensor, affine: Affine | FeatureAffine, other: Tensor | None = None) -> Deferred:
        """Defer a normalization, with what follows it."""
        with torch._C.DisableTorchFunctionSubclass():
            made = _Defer.apply(x, affine.weight, affine.bias, other, affine)
        made.x, made.affine, made.other = x, affine, other
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
            with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():  # as where it was called
                made: Tensor = _Compute.apply(last)
                if last._node is not None and last.affine.rectified and last.other is not None:
                    last._node.made = made.detach(), made._version
                last._made = made
        return last._made

    def source(self) -> Deferred | None:
        """Return the tensor to compute from, if a layer may do so itself, in its own pass over the input."""
        last = self.last
        return last if last._made is None and last.other is None and _as_autocast(last.x) else None

    def values(self) -> Tensor:
        """Compute the result, outside the graph."""
        if any(t._version != version for t, version in self._versions):
            raise RuntimeError(
                "a tensor was changed in place after it was normalized or added, and before the result was used: "
                "change a copy, or use the result first"
            )
        return self.affine(self.x, self.other)

    @property
    def _node(self) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return self.grad_fn

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
    if x._made is not None or not isinstance(x.affine, Affine):
        return None
    return _become(x, Deferred.of(x.x, x.affine._replace(rectified=True), x.other), inplace or func in RECTIFY_IN_PLACE)


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
    if not isinstance(one, Deferred) or one._made is not None or one.other is not None:
        return False
    if one.affine.rectified or not isinstance(one.affine, Affine):
        return False
    with torch._C.DisableTorchFunctionSubclass():
        return (
            isinstance(two, Tensor)
            and (two.shape, two.stride(), two.dtype) == (one.shape, one.stride(), one.dtype)
            and two.device == one.device
        )


def _as_autocast(x: Tensor) -> bool:
    """Return whether a layer would take x in its own type."""
    return not torch.is_autocast_enabled("cpu") or x.dtype == torch.get_autocast_dtype("cpu")


def _become(x: Deferred, made: Deferred, inplace: bool) -> Deferred:
    """Return the result of an operation; after an in-place one, the operand refers to it too."""
    if inplace:
        x.now = made
        if x._node is not None:
            x._node.changed = True
    return made


FOLLOWS: dict[Any, Callable[..., Deferred | None]] = {
    **dict.fromkeys((*RECTIFY, *RECTIFY_IN_PLACE), _rectify),
    **dict.fromkeys(ADD, _add),
}
"""Operations that can be deferred too."""


class _Defer(torch.autograd.Function):
    """The place of a normalization in the graph: its result is computed later, its gradient arrives here."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, affine: Affine | FeatureAffine
    ) -> Tensor:
        ctx.affine, ctx.adds, ctx.changed, ctx.made = affine.bare(), other is not None, False, None
        ctx.save_for_backward(x, weight, bias, other)
        return Tensor._make_wrapper_subclass(Deferred, x.shape, strides=x.stride(), dtype=x.dtype, device=x.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.changed:
            raise RuntimeError("a normalized tensor was changed in place: use what the operation returned")
        x, weight, bias, other = ctx.saved_tensors
        affine, y = ctx.affine._replace(weight=weight, bias=bias), None
        if affine.rectified and other is not None:
            y, version = ctx.made or (x, -1)
            y = y if y._version == version else affine(x, other)
            ctx.made = None
        return *affine.gradients(x, y, delta, ctx.adds), None


class _Compute(torch.autograd.Function):
    """The result of what was deferred; the gradient is that."""

    @staticmethod
    def forward(ctx: Any, x: Deferred) -> Tensor:
        return x.values()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        return delta
