"""Tensors that say they are on ``cuda:0`` and keep their numbers on the CPU.

Every ATen call that meets one comes through ``dispatch``: it refuses the devices that CUDA refuses to mix, notes what
a GPU would do (``tally``), and computes on the CPU. To PyTorch's C++ side a tensor is a wrapper on the CPU, as its
autograd engine asks a driver about any other device; what Python code asks (``device``, ``is_cuda``) says ``cuda:0``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import tally
import torch
from torch import Tensor

CUDA = torch.device("cuda", 0)

WAITING = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operations whose result, or its size, the host has to read."""
IDLE = {"_fused_sdp_choice", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
"""Operations that launch nothing, views aside."""
READING = {"index", "_unsafe_index"}
WRITING = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
SCALARS = {"fill", "fill_", "masked_fill", "masked_fill_", "_fused_sgd_", "_fused_adam_", "_fused_adamw_"}
"""Operations that read a CPU tensor of no dimensions on a GPU, besides pointwise ones."""


class MixedDevices(RuntimeError):
    """What CUDA would refuse, with the place that asked for it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} ({tally.place()})")


class CudaTensor(Tensor):
    """A tensor on the pretend device; ``held`` has its numbers, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> CudaTensor:
        assert type(held) is Tensor or isinstance(held, torch.nn.Parameter), type(held)
        layout: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        self = Tensor._make_wrapper_subclass(cls, held.size(), **layout, dtype=held.dtype, device=held.device)
        self.held = held.detach()
        return self

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        assert isinstance(new, CudaTensor)
        fresh, grad = CudaTensor(new.held).requires_grad_(self.requires_grad), self.grad
        if getattr(self, "_is_param", False):
            fresh._is_param = True
        self.grad = None
        torch.utils.swap_tensors(self, fresh)
        if grad is not None and grad.shape == self.shape:
            self.grad = grad

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __repr__(self, **_: Any) -> str:
        tally.wait("repr")
        return f"{self.held!r} on cuda:0"

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaTensor:
        if id(self) not in memo:
            tally.launch("clone")
            memo[id(self)] = copied = CudaTensor(self.held.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):  # what makes it an nn.Parameter
                copied._is_param = True
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        tally.copy("pickle")
        return self.held.clone().__reduce_ex__(protocol)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Be a wrapper to ``nn.Module.to``, which then keeps a parameter's identity, as it does between devices."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> CudaTensor:
        return CudaTensor(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def plain(value: Any) -> Any:
    """Return a value with the numbers of tensors in place of those on the pretend device."""
    if isinstance(value, CudaTensor):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    return value


def wrapped(value: Any, known: dict[int, CudaTensor] | None = None) -> Any:
    """Return a result as it is on the pretend device; ``known`` has the tensors there by the id of their numbers."""
    if isinstance(value, Tensor):
        return known[id(value)] if known and id(value) in known else CudaTensor(value)
    if isinstance(value, list | tuple):
        return type(value)(wrapped(part, known) for part in value)
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """Go over the tensors among arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def dispatch(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Check an ATen call on tensors of the pretend device, note what it costs, and compute it."""
    name, launches = _kind(func)
    given = [*tensors(args), *tensors(list(kwargs.values()))]
    known = {id(t.held): t for t in given if isinstance(t, CudaTensor)}
    if not all(isinstance(t, CudaTensor) for t in given):
        _check(func, name, args, given)
    if name in WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        tally.wait(name)
    if name in READING and any(is_mask(i) for i in args[1]):
        tally.wait("boolean mask")
    if name in WRITING and any(is_mask(i) for i in args[1]) and not _is_host_scalar(args[2]):
        tally.wait("boolean mask")  # of a Python number the kernel is that of masked_fill
    if launches:
        tally.launch(name)
    out = func(*plain(tuple(args)), **{key: plain(value) for key, value in kwargs.items()})
    if not isinstance(args[0] if args else None, CudaTensor) and name == "copy_":
        return args[0]
    for tensor in known.values():
        if tensor.shape != tensor.held.shape:
            raise NotImplementedError(f"{name} changes a shape in place, which the pretend device cannot")
    return wrapped(out, known)


@cache
def _kind(func: Any) -> tuple[str, bool]:
    """Return an operation's name, and whether it launches a kernel."""
    name = func._schema.name.partition("::")[2]
    views = any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
    return name, not views and name not in IDLE


def _check(func: Any, name: str, args: Sequence[Any], given: Sequence[Tensor]) -> None:
    """Refuse a mix of devices as CUDA does, or note the hidden copies of one that it takes.

    Raises:
        MixedDevices: it is refused.
    """
    if name in ("copy_", "_copy_from"):
        tally.copy(name)
    elif name in READING or name in WRITING:
        if not isinstance(args[0], CudaTensor):
            raise MixedDevices(f"{name}: a CPU tensor with indices or values on a GPU")
        if name in WRITING and not isinstance(args[2], CudaTensor):
            if args[2].dim():
                raise MixedDevices(f"{name}: values on the CPU for a tensor on a GPU")
            if not any(is_mask(i) for i in args[1]):
                tally.copy("a number to where an index says")
        if any(isinstance(i, Tensor) and not isinstance(i, CudaTensor) for i in args[1]):
            tally.copy("an index on the CPU")
    else:
        scalars = torch.Tag.pointwise in func.tags or name in SCALARS or name.startswith("_foreach")
        host = [t for t in given if not isinstance(t, CudaTensor)]
        written = func._schema.arguments[0].alias_info is not None and any(
            t is h for t in tensors(args[:1]) for h in host
        )
        if written or not scalars or any(t.dim() for t in host):
            shapes = [tuple(t.shape) for t in host]
            raise MixedDevices(f"{name}: all tensors must be on one device, and those of shape {shapes} are on the CPU")


def is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _is_host_scalar(value: Tensor) -> bool:
    return not isinstance(value, CudaTensor) and value.dim() == 0
