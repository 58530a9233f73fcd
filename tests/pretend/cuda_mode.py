"""The pretend device: while ``pretend`` lasts, ``cuda`` is a device of this machine.

What Python code asks of a device before ATen sees it is answered here: where a tensor is made or moved, what only CPU
tensors can do, generators, and the parts of ``torch.cuda`` that dstrun calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import tally
import torch
import torch._dynamo  # what optimizers import; it looks for a real GPU
from cuda_tensor import CUDA, CudaTensor, MixedDevices, is_mask, plain, tensors, wrapped
from torch import Tensor
from torch.autograd import _engine_run_backward as run_backward
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils

COPYING = {"tensor", "as_tensor", "asarray", "scalar_tensor"}
"""What makes a tensor of numbers of the host."""
SPECIAL = {"new_tensor", "matmul", "__matmul__", "__rmatmul__"}
"""What C++ does in a way that is not a GPU's."""
EMPTY = {"empty", "empty_like", "new_empty", "empty_strided"}


class Pretend(TorchFunctionMode):
    """Answers for the pretend device what never reaches ATen, or reaches it as the CPU's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (answer := ANSWERS.get(func)) is not None:
            return answer(*args, **kwargs)
        name, device, drawn = getattr(func, "__name__", ""), kwargs.get("device"), kwargs.get("generator")
        if device is None and drawn is None and name not in SPECIAL:
            return func(*args, **kwargs)
        here = any(isinstance(t, CudaTensor) for t in tensors(args))
        on_cuda = _is_cuda(device) or (device is None and here)
        if drawn is not None and on_cuda != isinstance(drawn, CudaGenerator):
            raise MixedDevices(f"{name}: a generator of the {'CPU' if on_cuda else 'GPU'} for a tensor of the other")
        if on_cuda != here or (here and device is not None):
            return _made(func, name, args, kwargs)
        if name == "new_tensor" and here:
            tally.copy(name)
            return CudaTensor(func(args[0].held, *args[1:], **kwargs))
        if name in SPECIAL and here and args[0].dim() == 1 and args[1].dim() == 2:
            return torch.mm(args[0][None], args[1])[0]  # else C++ changes a shape in place
        return func(*args, **kwargs)


def _made(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """Make a tensor on the device that is named."""
    made = func(*plain(tuple(args)), **{k: plain(v) for k, v in kwargs.items()} | {"device": "cpu"})
    if not _is_cuda(kwargs["device"]):
        if name in COPYING:
            tally.copy(name)
        return made
    if name in COPYING:
        tally.copy(name)
    elif name not in EMPTY:
        tally.launch(name)
    found = wrapped(made)
    return found.requires_grad_() if isinstance(found, Tensor) and kwargs.get("requires_grad") else found


def _is_cuda(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


def move(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Do what ``Tensor.to`` does."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    other = [*args, kwargs.get("other")]
    flags = [word for word in args if isinstance(word, bool)]
    pinned = (kwargs.get("non_blocking") or flags[:1] == [True]) and not isinstance(tensor, CudaTensor)
    for word in other:
        if isinstance(word, torch.dtype):
            dtype = word
        elif isinstance(word, Tensor):
            device, dtype = word.device, word.dtype
        elif isinstance(word, str | torch.device):
            device = word
    how = {"copy": bool(kwargs.get("copy") or flags[1:] == [True]), "memory_format": kwargs.get("memory_format")}
    how = {key: value for key, value in how.items() if value} | ({"dtype": dtype} if dtype is not None else {})
    here = isinstance(tensor, CudaTensor)
    if device is None or _is_cuda(device) == here:
        if device is not None and not here:
            how["device"] = device  # the CPU, or meta
        return Tensor.to(tensor, **how) if how else tensor
    if tensor.is_meta:
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    if tensor.requires_grad and torch.is_grad_enabled() and not tensor.is_leaf:
        raise NotImplementedError("the pretend device takes no gradient back over a copy")
    tally.copy("to the CPU" if here else "to the GPU", waits=not (pinned and _is_pinned(tensor)))
    moved = Tensor.to(plain(tensor).detach(), **how | {"copy": True})
    return moved if here else CudaTensor(moved)


def _pin(tensor: Tensor) -> Tensor:
    """Return a copy in memory that a GPU can read by itself."""
    if isinstance(tensor, CudaTensor):
        raise MixedDevices(f"only tensors of the CPU can be pinned ({tally.place()})")
    made: Any = tensor.clone()
    made.pinned = True
    return made


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor, "pinned", False)


def _listed(tensor: Tensor) -> Any:
    if isinstance(tensor, CudaTensor):
        tally.wait("tolist")
    return plain(tensor).tolist()


def _refused(what: Callable[..., Any]) -> Callable[..., Any]:
    """Return what an array of numpy is made by, of CPU tensors alone."""

    def make(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, CudaTensor) and not kwargs.get("force"):
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({tally.place()})")
        if isinstance(tensor, CudaTensor):
            tally.copy("numpy")
        return what(plain(tensor), *args, **kwargs)

    return make


def _written(tensor: Tensor, index: Any, value: Any) -> None:
    """Do what ``tensor[index] = value`` does.

    Before some version later than 2.11 PyTorch has a number on the CPU there, which is copied unless it goes to a mask.
    """
    places = [i for i in (index if isinstance(index, tuple) else (index,)) if isinstance(i, Tensor) and i.dim()]
    if isinstance(tensor, CudaTensor) and isinstance(value, int | float) and places:
        value = torch.tensor(value, dtype=tensor.dtype)
        if not any(map(is_mask, places)):
            tally.copy("a number to where an index says")
            value = CudaTensor(value)
    Tensor.__setitem__(tensor, index, value)


ANSWERS: dict[Any, Callable[..., Any]] = {
    Tensor.__setitem__: _written,
    Tensor.to: move,
    Tensor.cpu: lambda tensor, **kwargs: move(tensor, "cpu", **kwargs),
    Tensor.cuda: lambda tensor, device=None, **kwargs: move(tensor, CUDA, **kwargs),
    Tensor.pin_memory: _pin,
    Tensor.is_pinned: _is_pinned,
    Tensor.tolist: _listed,
    Tensor.numpy: _refused(Tensor.numpy),
    Tensor.__array__: _refused(Tensor.__array__),
}


class CudaGenerator(torch.Generator):
    """A generator of the pretend device."""

    device = CUDA


class Generator(torch.Generator):
    """Stands in for ``torch.Generator``: makes one of the device that is asked for."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        return (CudaGenerator if _is_cuda(device) else _Generator)()


_Generator = torch.Generator


class Stream:
    """A stream on which everything has been done already."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def synchronize(self) -> None:
        tally.wait("stream")

    def wait_stream(self, other: Stream) -> None: ...

    def is_capturing(self) -> bool:
        return False


class Event:
    """An event that has come."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None:
        tally.wait("event")

    def elapsed_time(self, end: Event) -> float:
        return 1.0


def _nothing(*_: Any, **__: Any) -> None: ...


STAND_INS: dict[str, Any] = {
    "is_available": lambda: True,
    "_lazy_init": _nothing,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": _nothing,
    "get_device_name": lambda *_: "pretend",
    "get_device_capability": lambda *_: (9, 0),
    "is_bf16_supported": lambda *_: True,
    "synchronize": lambda *_: tally.wait("synchronize"),
    "memory_allocated": lambda *_: 0,
    "max_memory_allocated": lambda *_: 0,
    "reset_peak_memory_stats": _nothing,
    "mem_get_info": lambda *_: (1 << 40, 1 << 40),
    "empty_cache": _nothing,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": _nothing,
    "manual_seed": _nothing,  # dropout draws from the CPU's generator, which is seeded as well
    "manual_seed_all": _nothing,
    "Stream": Stream,
    "Event": Event,
    "set_stream": _nothing,
    "current_stream": lambda *_: Stream(),
    "is_current_stream_capturing": lambda: False,
}
"""What takes the place of parts of ``torch.cuda``."""


@contextmanager
def pretend() -> Iterator[None]:
    """Have a device ``cuda`` inside; how PyTorch multiplies and whether it is deterministic is as before afterwards."""
    mode = Pretend()

    def backward(*args: Any, **kwargs: Any) -> Any:
        with mode:  # left while a function runs, and hooks of the backward pass are Python code
            return run_backward(*args, **kwargs)

    with ExitStack() as stack:
        for kinds in (_foreach_utils._foreach_supported_types, optimizer._foreach_supported_types):
            kinds.append(CudaTensor)  # lists that others have imported
            stack.callback(kinds.remove, CudaTensor)
        stack.enter_context(same_settings())
        for name, stand_in in STAND_INS.items():
            stack.enter_context(patch.object(torch.cuda, name, stand_in))
        stack.enter_context(patch.object(torch.accelerator, "current_stream", STAND_INS["current_stream"]))
        stack.enter_context(patch.object(torch, "Generator", Generator))
        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", backward))
        stack.enter_context(mode)
        yield


@contextmanager
def same_settings() -> Iterator[None]:
    """Leave PyTorch's global settings as they were."""
    cudnn: Any = torch.backends.cudnn
    kinds = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    before = [kind.fp32_precision for kind in kinds], cudnn.benchmark
    deterministic: Any = torch.utils.deterministic
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled, threads = deterministic.fill_uninitialized_memory, torch.get_num_threads()
    try:
        yield
    finally:
        for kind, precision in zip(kinds, before[0], strict=True):
            kind.fp32_precision = precision
        cudnn.benchmark = before[1]
        deterministic.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        torch.set_num_threads(threads)
