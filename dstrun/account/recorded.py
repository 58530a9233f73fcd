"""Record every allocation of a phase with PyTorch's profiler, on CPU and CUDA allocators, with addresses."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile, record_function

from dstrun.account.timeline import Event

BACKWARD = "autograd::engine::evaluate_function: "
GRADIENT, RELEASED = "dstrun gradient ", "dstrun released "


@contextmanager
def recorded(
    device: torch.device, parameters: Iterable[nn.Parameter] = (), lasting: Iterable[Tensor] = ()
) -> Iterator[list[Event]]:
    """Record allocations on a device, temporaries inside kernels included; the yielded list has them afterwards.

    Args:
        device: ``cpu`` or ``cuda``; elsewhere nothing is reported.
        parameters: whose gradients are marked as such.
        lasting: tensors from before, whose release on a CPU the profiler does not report.
    """
    events: list[Event] = []
    watched = [_watch(tensor) for tensor in lasting]
    profiler = profile(profile_memory=True, use_kineto=True)  # that of torch.profiler, around it, warns in 2.11
    with _quiet():
        profiler.__enter__()
    try:
        with marked(parameters, _mark):
            yield events
    finally:
        with _quiet():
            profiler.__exit__(None, None, None)
        watched.clear()
        assert profiler.kineto_results is not None
        roots = profiler.kineto_results.experimental_event_tree()
        events += sorted(_events(roots, device.type), key=lambda event: event.at)


@contextmanager
def marked(parameters: Iterable[nn.Parameter], mark: Any) -> Iterator[None]:
    """Call a function with every gradient when it is put where the optimizer finds it."""

    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            mark(parameter.grad)

    handles = [p.register_post_accumulate_grad_hook(hook) for p in parameters if p.requires_grad and p.is_leaf]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mark(gradient: Tensor) -> None:
    with record_function(f"{GRADIENT}{address(gradient)} 0"):
        pass


def _watch(tensor: Tensor) -> weakref.ref[Any]:
    """Mark when a tensor's storage is released, as long as what is returned is kept."""
    event = f"{RELEASED}{address(tensor)} {-tensor.untyped_storage().nbytes()}"

    def released(_: Any) -> None:
        with record_function(event):
            pass

    return weakref.ref(tensor.untyped_storage(), released)


def address(tensor: Tensor) -> int:
    """Return where a tensor's storage begins."""
    return tensor.untyped_storage().data_ptr()


def _events(roots: list[Any], device: str) -> Iterator[Event]:
    """Iterate over the profiler's tree: the ancestors of an allocation show its purpose."""
    spans = 0
    waiting = [(root, 0, False) for root in reversed(roots)]
    while waiting:
        node, span, inside = waiting.pop()
        found = node.extra_fields
        kind = type(found).__name__
        if kind == "_ExtraFields_Allocation":
            if str(found.device).partition(":")[0] == device:
                yield Event(node.start_time_ns, found.ptr, found.alloc_size, span, inside)
            continue
        name = node.name
        if name.startswith((GRADIENT, RELEASED)):
            key, size = map(int, name.split()[2:])
            yield Event(node.start_time_ns, key, size, span, inside)
            continue
        if name.startswith(BACKWARD):
            spans += 1
            span, inside = spans, False
        elif span and kind == "_ExtraFields_TorchOp" and "BACKWARD" not in str(found.scope):
            inside = inside or found.sequence_number >= 0
        waiting += [(child, span, inside) for child in reversed(node.children)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notes that the profiler's C++ side writes to the error stream when it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
