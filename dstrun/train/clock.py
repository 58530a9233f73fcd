"""Seconds of training: each step's own, on a GPU between events so that nothing waits for the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch


class Clock:
    """Collects the seconds of ordinary steps, of steps that updated the topology, and of epochs."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.seconds: dict[str, list[float]] = {"step": [], "update": [], "epoch": []}
        self.before = 0.0
        self.started = time.perf_counter()
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def time(self, kind: str | None) -> Iterator[None]:
        """Time what happens inside as a ``step`` or an ``update``; ``None`` leaves it out, as when it is profiled."""
        if kind is None:
            yield
        elif self.cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._pending.append((kind, start, end))
        else:
            start = time.perf_counter()
            yield
            self.seconds[kind].append(time.perf_counter() - start)

    def epoch(self, seconds: float) -> None:
        """Note an epoch's training time, and read the events of its steps."""
        self.seconds["epoch"].append(seconds)
        for kind, start, end in self._pending:
            end.synchronize()
            self.seconds[kind].append(start.elapsed_time(end) / 1000)
        self._pending.clear()

    def record(self) -> dict[str, Any]:
        """Return the record's ``seconds`` group; ``total`` counts every process that worked on the run."""
        medians = {f"{kind}_median": median(values) if values else None for kind, values in self.seconds.items()}
        return {"train": sum(self.seconds["epoch"]), **medians, "total": self._total()}

    def state(self) -> dict[str, Any]:
        """Return the times so far, for a checkpoint."""
        return {"seconds": {k: list(v) for k, v in self.seconds.items()}, "total": self._total()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's times."""
        self.seconds = {k: list(v) for k, v in state["seconds"].items()}
        self.before = state["total"]

    def _total(self) -> float:
        return self.before + time.perf_counter() - self.started
