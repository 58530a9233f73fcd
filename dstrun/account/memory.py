"""Memory, measured: what a training step and a topology update hold at their peak.

Taxonomy (Sohoni et al. 2019): *model* is parameters and buffers; *optimizer* gradients and optimizer state;
*activation* what the forward pass saves for the backward one, its input included; *index* what says which connections
are active; *method* what a method keeps between steps; *transient* the rest of the peak. On a GPU the allocator
reports the peak; on a CPU the profiler reports every allocation, temporaries inside kernels included. The resident
data set is not part of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler import profile

from dstrun.layer import SparseLayer


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the bytes of the tensors' storages, each storage once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors(state: Any) -> Iterator[Tensor]:
    """Go over the tensors of a nested state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


class MemoryMeter:
    """Measures the peak of chosen steps of a run, in this process.

    ``method`` gives the state its method keeps, set once there is one; ``buckets`` the bytes of gradients that are kept
    between steps where several processes exchange them; ``kept`` those of activations that ``dstrun.storage`` keeps.

    Args:
        model: the network trained.
        optimizer: its optimizer.
        layers: its sparse layers.
        device: where it trains; on ``mps`` no peak can be read, so only the parts at rest are reported.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, layers: list[SparseLayer], device: torch.device
    ) -> None:
        self.model, self.optimizer, self.layers, self.device = model, optimizer, layers, device
        self.method: Callable[[], dict[str, Any]] = dict
        self.buckets: Callable[[], int] = int
        self.kept: Callable[[], int] = int
        self.peaks: dict[str, int] = {}
        self.activations = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside as a phase: ``prepare``, ``step`` or ``update``; the first of each counts."""
        with self._saved_for_backward(name), _peak(self.device) as peak:
            yield
        self.peaks.setdefault(name, self.at_rest() + peak[0])

    def at_rest(self) -> int:
        """Count the bytes held between steps: parameters, buffers, optimizer state, indices, the method's own state."""
        held = self.model_bytes() + self.state_bytes() + self.index_bytes() + self.method_bytes()
        return held + self.buckets()

    def model_bytes(self) -> int:
        """Count parameters and buffers, less those that say which connections are active."""
        held = {t.untyped_storage()._cdata for layer in self.layers for t in layer.index()}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return tensor_bytes(t for t in tensors if t.untyped_storage()._cdata not in held)

    def state_bytes(self) -> int:
        """Count the optimizer's own state."""
        states = self.optimizer.state.values()
        return tensor_bytes(t for state in states for t in state.values() if isinstance(t, Tensor))

    def index_bytes(self) -> int:
        """Count what says on the device which connections are active."""
        here = (t for layer in self.layers for t in layer.index() if t.device.type == self.device.type)
        return tensor_bytes(here)

    def method_bytes(self) -> int:
        """Count what the method keeps on the device between steps: averages, signs, early weights."""
        return sum(t.nbytes for t in _tensors(self.method()) if t.device.type == self.device.type)

    def record(self) -> dict[str, Any]:
        """Give the record's ``memory`` group."""
        model, index, method = self.model_bytes(), self.index_bytes(), self.method_bytes()
        optimizer = self.state_bytes() + tensor_bytes(p for p in self.model.parameters() if p.requires_grad)
        peak = max(self.peaks.values(), default=None)
        parts = model + optimizer + self.activations + index + method
        return {
            "peak_bytes": peak,
            "model_bytes": model,
            "optimizer_bytes": optimizer,
            "activation_bytes": self.activations,
            "transient_bytes": None if peak is None else max(0, peak - parts),
            "index_bytes": index,
            "method_bytes": method,
            "prepare_peak_bytes": self.peaks.get("prepare"),
            "step_peak_bytes": self.peaks.get("step"),
            "update_peak_bytes": self.peaks.get("update"),
            "how": _HOW.get(self.device.type, "no peak can be read on this device"),
        }

    def state(self) -> dict[str, Any]:
        """Give what was measured, for a checkpoint."""
        return {"peaks": dict(self.peaks), "activations": self.activations}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with what was measured before."""
        self.peaks, self.activations = dict(state["peaks"]), state["activations"]

    @contextmanager
    def _saved_for_backward(self, phase: str) -> Iterator[None]:
        with saved_for_backward([*self.model.parameters(), *self.model.buffers()]) as saved:
            yield
        if phase == "step" or not self.activations:
            self.activations = sum(saved.values()) + self.kept()


_HOW = {
    "cpu": "every allocation of the CPU allocator over one step, from the profiler",
    "cuda": "peak of the CUDA caching allocator over one step, data set excluded",
}


@contextmanager
def saved_for_backward(besides: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that the forward pass saves for backward, other than the given tensors'."""
    known = {t.untyped_storage()._cdata for t in besides}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Measure how far allocations rise above where they start; the yielded list holds the bytes afterwards."""
    risen = [0]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        start = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield risen
        torch.cuda.synchronize(device)
        risen[0] = torch.cuda.max_memory_allocated(device) - start
    elif device.type == "cpu":
        profiler = profile(profile_memory=True, use_kineto=True)  # that of torch.profiler, around it, warns in 2.11
        with _quiet():
            profiler.__enter__()
        try:
            yield risen
        finally:
            with _quiet():
                profiler.__exit__(None, None, None)
        assert profiler.kineto_results is not None
        events = profiler.kineto_results.events()
        held = 0
        sizes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]  # type: ignore[attr-defined]
        for _, size in sorted(sizes):
            held += size
            risen[0] = max(risen[0], held)
    else:
        yield risen


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


def resident_peak_bytes() -> int | None:
    """Read the process's peak resident memory since the last call, where Linux tells; includes all libraries."""
    try:
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
    except (OSError, StopIteration):
        return None
    return peak
