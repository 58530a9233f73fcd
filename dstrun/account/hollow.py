"""Run training code on fake tensors, without computing, and record every allocation.

Tensors of floating point are fake ones (``torch._subclasses``), which have shapes and storages of the right size.
Integers are real, and so are numbers drawn by a generator and those of 64 bits: topologies, drawn connections and the
sums that these are drawn from are small, and how much is allocated depends on them. Where code asks for numbers that
were never computed (the highest of some scores, say), random ones stand in. So an update of the topology runs as it
does in training.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dstrun.account.recorded import marked
from dstrun.account.scratch import scratch
from dstrun.account.timeline import Event

aten = torch.ops.aten
ORDERS = {aten.sort, aten.topk, aten.argsort, aten.argmax, aten.argmin, aten.kthvalue, aten.multinomial, aten.nonzero}
"""What ranks or picks: of stand-ins it gives real positions."""

SMALL = 1 << 13
"""Constants of so many numbers are real, in whatever type: what is drawn by equal weights is drawn so here."""

FEW = 1 / 8
"""Of many truth values that were never computed, this share is true."""

EXACT = torch.float64
"""What has this type is computed: no network has it, and sums that connections are drawn by do."""

READS = ("numpy", "tolist")
"""Methods that hand numbers to Python without an operation of PyTorch."""


class Hollow(TorchDispatchMode):
    """Runs its body on tensors without data, and reports allocations and releases.

    Attributes:
        events: of the phase that is recorded now (``recorded``); none outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.draws = torch.Generator().manual_seed(0)
        self.events: list[Event] | None = None
        self._living: dict[int, weakref.ref[Any]] = {}
        self._real: dict[int, int] = {}
        self._spans: dict[tuple[int, int], int] = {}
        self._count = 0

    def __enter__(self) -> Hollow:
        self._patched = ExitStack()
        self._patched.callback(setattr, torch.utils, "swap_tensors", torch.utils.swap_tensors)
        torch.utils.swap_tensors = self._take_over  # as ``Module.to`` does with fake ones: weak references forbid it
        for name in READS:
            self._patched.callback(delattr, Tensor, name)
            setattr(Tensor, name, self._reading(getattr(Tensor, name)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patched.close()

    def _reading(self, method: Any) -> Any:
        return lambda tensor, *args, **how: method(self.numbers(tensor), *args, **how)

    def _take_over(self, one: Tensor, other: Tensor) -> None:
        with self.fake:
            one.data = other.data if isinstance(other, FakeTensor) else self.fake.from_tensor(other.detach())

    def address(self, tensor: Tensor) -> int:
        """Return the key of a tensor's storage; a fake stand-in of a real tensor has that of the real one."""
        key = int(tensor.untyped_storage()._cdata)
        return self._real.get(key, key)

    @contextmanager
    def recorded(
        self, device: torch.device, parameters: Iterable[nn.Parameter] = (), lasting: Iterable[Tensor] = ()
    ) -> Iterator[list[Event]]:
        """Record allocations and releases, as ``recorded.recorded`` does of real ones."""
        for tensor in lasting:
            self._watch(tensor)
        self.events = events = []
        try:
            with marked(parameters, lambda gradient: self._tell(self.address(gradient), 0)):
                yield events
        finally:
            self.events = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here, and asking its compiler not to takes seconds
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, on fake tensors where one of its inputs is, and tell what it allocates."""
        kwargs = kwargs or {}
        if FakeTensor not in types:
            out, known = func(*args, **kwargs), None
            if isinstance(out, Tensor) and (not out.dtype.is_floating_point or out.is_meta or out.numel() <= 1):
                self._see(out)
                return out
            if kwargs.get("generator") is None:
                given = list(_tensors((args, kwargs)))
                known = {tensor.untyped_storage()._cdata for tensor in given}
                constant = not given or func.overloadpacket is aten._to_copy
                out = _mapped(lambda x: x if constant and x.numel() <= SMALL else self._emptied(x, known), out)
        elif func.overloadpacket in ORDERS or _picks_by_truth(func, args):
            out = self._stood_in(func, args, kwargs)
        else:
            try:  # fake kernels take no generator
                out = self._on_fakes(func, args, {key: x for key, x in kwargs.items() if key != "generator"})
            except (DataDependentOutputException, DynamicOutputShapeException):
                out = self._stood_in(func, args, kwargs)
        made = list(_tensors(out))
        for tensor in made:
            self._see(tensor)
        if self.events is not None and FakeTensor in types:
            self._work(scratch(func, list(_tensors((args, kwargs))), made))
        return out

    def numbers(self, tensor: Tensor) -> Tensor:
        """Return random numbers of a tensor's shape and type; whole ones are 0, few of many truth values true."""
        if not isinstance(tensor, FakeTensor):
            return tensor
        shape, dtype = tuple(tensor.shape), tensor.dtype
        with _disable_current_modes():  # they are no part of the run
            if dtype.is_floating_point:
                return torch.rand(shape, generator=self.draws, dtype=dtype)
            if dtype == torch.bool and tensor.numel() > 1:
                return torch.rand(shape, generator=self.draws) < FEW
            return torch.full(shape, dtype == torch.bool, dtype=dtype)

    def _stood_in(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on stand-ins; numbers of floating point that it gives are none again."""
        args, kwargs = _mapped(self.numbers, (args, kwargs))
        return _mapped(lambda x: self._emptied(x, set()), func(*args, **kwargs))

    def _on_fakes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on fake tensors; what it changes in place is given back as it was given."""
        originals: dict[int, Tensor] = {}

        def faked(x: Tensor) -> Tensor:
            if isinstance(x, FakeTensor):
                return x
            made = self.fake.from_tensor(x)
            stand, real = made.untyped_storage(), x.untyped_storage()._cdata
            if stand._cdata not in self._real:
                self._real[stand._cdata] = real
                self._living[stand._cdata] = weakref.ref(stand, lambda _, key=stand._cdata: self._forget(key))
            originals[id(made)] = x
            return made

        args, kwargs = _mapped(faked, (args, kwargs))
        with self.fake:
            out = func(*args, **kwargs)
        return _mapped(lambda x: self.numbers(x) if x.dtype == EXACT else originals.get(id(x), x), out)

    def _emptied(self, out: Tensor, known: set[int]) -> Tensor:
        """Replace new numbers of floating point by a fake tensor; single numbers stay."""
        if not out.dtype.is_floating_point or out.dtype == EXACT or out.numel() <= 1 or out.is_meta:
            return out
        if isinstance(out, FakeTensor) or out.untyped_storage()._cdata in known:
            return out
        with self.fake:
            return torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device)

    def _see(self, tensor: Tensor) -> None:
        """Record the allocation of a tensor's storage, once, and its release when it comes."""
        if tensor.is_meta:
            return
        if self._watch(tensor):
            storage = tensor.untyped_storage()
            self._tell(storage._cdata, storage.nbytes())

    def _watch(self, tensor: Tensor) -> bool:
        """Watch for the release of a tensor's storage; return whether it was unknown."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._living:
            return False
        self._living[key] = weakref.ref(storage, lambda _: self._release(key, size))
        return True

    def _release(self, key: int, size: int) -> None:
        del self._living[key]
        self._tell(key, -size)

    def _forget(self, key: int) -> None:
        del self._living[key], self._real[key]

    def _work(self, size: int) -> None:
        """Record what a kernel allocates for itself, and releases."""
        if size:
            self._count += 1
            self._tell(-self._count, size)
            self._tell(-self._count, -size)

    def _tell(self, key: int, size: int) -> None:
        if self.events is None:
            return
        node: Any = torch._C._current_autograd_node()
        span = recording = 0
        if node is not None:
            place = torch._C._current_graph_task_id(), node._sequence_nr()
            span = self._spans.setdefault(place, len(self._spans) + 1)
            recording = torch.is_grad_enabled() or _in_forward()
        self.events.append(Event(len(self.events), key, size, span, bool(recording)))


def _picks_by_truth(func: Any, args: Any) -> bool:
    """Return whether an operation picks numbers by truth values, so that how many is known by these alone."""
    return func.overloadpacket is aten.index and any(x is not None and x.dtype == torch.bool for x in args[1])


def _tensors(given: Any) -> Iterator[Tensor]:
    """Iterate over the tensors among arguments or results of an operation, which nest lists at most."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, tuple | list):
        for part in given:
            yield from _tensors(part)
    elif isinstance(given, dict):
        for part in given.values():
            yield from _tensors(part)


def _mapped(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """Change the tensors among arguments or results of an operation."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, tuple | list):
        return type(given)(_mapped(change, part) for part in given)
    if isinstance(given, dict):
        return {key: _mapped(change, part) for key, part in given.items()}
    return given


def _in_forward() -> bool:
    """Return whether a function of Python's is in its forward pass, inside of a backward pass: a recomputation."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("forward", "backward") and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, FunctionCtx):
                return code.co_name == "forward"
        frame = frame.f_back
    return False
