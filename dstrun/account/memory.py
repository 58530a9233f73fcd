"""Measured memory: what a training step and a topology update hold at their peak, and over time.

Taxonomy (Sohoni et al. 2019): *model* is parameters and buffers; *optimizer* gradients and optimizer state;
*activation* what the forward pass saves for the backward one, its input included; *index* what says which connections
are active; *method* what a method keeps between steps; *transient* the rest. It is what is held between steps and every
allocation and release since (``recorded``), split by one set of rules (``timeline``). The resident data set is no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.account.recorded import address, recorded
from dstrun.account.timeline import text, timeline
from dstrun.layer.interface import SparseLayer


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the bytes of the tensors' storages, each storage once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors(state: Any) -> Iterator[Tensor]:
    """Iterate over the tensors of a nested state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


class MemoryMeter:
    """Measures chosen steps of a run, in this process: their peaks, and what is held over time.

    ``method`` gives the state its method keeps, set once there is one; ``buckets`` the bytes of gradients that are kept
    between steps where several processes exchange them. A prediction tells allocations itself: ``record_events`` of a
    phase, ``address`` the key of a tensor's storage.

    Args:
        model: the network trained.
        optimizer: its optimizer.
        layers: its sparse layers.
        device: where it trains; on ``mps`` no allocation is told, so only the parts at rest are reported.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, layers: list[SparseLayer], device: torch.device
    ) -> None:
        self.model, self.optimizer, self.layers, self.device = model, optimizer, layers, device
        self.method: Callable[[], dict[str, Any]] = dict
        self.buckets: Callable[[], int] = int
        self.record_events: Callable[..., Any] = recorded
        self.address: Callable[[Tensor], int] = address
        self.phases: dict[str, dict[str, Any]] = {}

    @property
    def peaks(self) -> dict[str, int]:
        """The peak of every phase measured."""
        return {name: phase["peak"] for name, phase in self.phases.items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside as a phase: ``prepare``, ``step`` or ``update``; the first of each counts."""
        if self.device.type not in _HOW:
            yield
            return
        before = self._known()
        besides = {"optimizer": self.buckets(), "method": self._unplaced(before)}
        lasting = (tensor for _, tensor in self._lasting())
        with self.record_events(self.device, self.model.parameters(), lasting) as events:
            yield
        if name not in self.phases:
            self.phases[name] = asdict(timeline(events, before, self._known(), besides))

    def _lasting(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over what is kept between steps on the device: its part, and the tensor."""
        groups: dict[str, Iterable[Tensor]] = {
            "index": self._index(),
            "model": [*self.model.parameters(), *self.model.buffers()],
            "optimizer": self._state(),
            "method": _tensors(self.method()),
        }
        for part, tensors in groups.items():
            yield from ((part, tensor) for tensor in tensors if tensor.device.type == self.device.type)

    def _known(self) -> dict[int, tuple[str, int]]:
        """Return part and bytes of every storage that lasts; one that several parts use is of the first."""
        found: dict[int, tuple[str, int]] = {}
        for part, tensor in self._lasting():
            found.setdefault(self.address(tensor), (part, tensor.untyped_storage().nbytes()))
        return found

    def _unplaced(self, known: dict[int, tuple[str, int]]) -> int:
        """Count what the method keeps and hands out as copies, whose storages are none of its own."""
        return max(0, self.method_bytes() - sum(size for part, size in known.values() if part == "method"))

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
        return tensor_bytes(self._state())

    def index_bytes(self) -> int:
        """Count what says on the device which connections are active."""
        return tensor_bytes(t for t in self._index() if t.device.type == self.device.type)

    def method_bytes(self) -> int:
        """Count what the method keeps on the device between steps: averages, signs, early weights."""
        return sum(t.nbytes for t in _tensors(self.method()) if t.device.type == self.device.type)

    def _state(self) -> list[Tensor]:
        return [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]

    def _index(self) -> list[Tensor]:
        return [t for layer in self.layers for t in layer.index()]

    @property
    def activations(self) -> int:
        """The most bytes saved for backward at once, in an ordinary step or in what else was measured."""
        phase = self.phases.get("step") or next(iter(self.phases.values()), None)
        return phase["activations"] if phase else 0

    def record(self) -> dict[str, Any]:
        """Return the record's ``memory`` group."""
        model, index, method = self.model_bytes(), self.index_bytes(), self.method_bytes()
        optimizer = self.state_bytes() + tensor_bytes(p for p in self.model.parameters() if p.requires_grad)
        peaks = self.peaks
        fullest = max(peaks, key=peaks.__getitem__, default=None)
        return {
            "peak_bytes": None if fullest is None else peaks[fullest],
            "model_bytes": model,
            "optimizer_bytes": optimizer,
            "activation_bytes": self.activations,
            "transient_bytes": None
            if fullest is None
            else max(0, peaks[fullest] - (model + optimizer + self.activations + index + method)),
            "index_bytes": index,
            "method_bytes": method,
            **{f"{name}_peak_bytes": peaks.get(name) for name in PHASES},
            "at_peak": {name: dict(self.phases[name]["at_peak"]) for name in PHASES if name in self.phases},
            "how": _HOW.get(self.device.type, "no peak can be read on this device"),
        }

    def timeline(self) -> str:
        """Return what was held over each phase as CSV, for the run's folder."""
        return text({name: self.phases[name]["rows"] for name in PHASES if name in self.phases})

    def state(self) -> dict[str, Any]:
        """Return what was measured, for a checkpoint."""
        return {"phases": dict(self.phases)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with what was measured before."""
        self.phases = dict(state["phases"])


PHASES = ("prepare", "step", "update")
"""What is measured: scoring before the first step, an ordinary step, a step that updates the topology."""

_HOW = {
    "cpu": "every allocation of the CPU allocator over one step, from the profiler",
    "cuda": "every allocation of the CUDA caching allocator over one step, from the profiler, data set excluded",
}


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
