"""Memory over one phase of training: every allocation and release, split by purpose.

Measurement (``recorded``) and prediction (``hollow``) give the same events, and are split by the same rules. All
sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PARTS = ("model", "optimizer", "activation", "index", "method", "transient")
"""What memory is held for (Sohoni et al. 2019, and what sparse training adds)."""

ROWS = 120
"""Rows of a timeline that are kept: of as many stretches of equally many events each, the moment that holds most."""

Known = Mapping[int, tuple[str, int]]
"""Part and bytes of every storage that lasts longer than a phase, by its key."""


@dataclass(frozen=True, slots=True)
class Event:
    """One allocation or release, or a storage that becomes a gradient.

    Attributes:
        at: nanoseconds, or a number that grows.
        key: of the storage: its address, or a number of its own.
        size: bytes allocated; negative where they are released; 0 where the storage becomes a parameter's gradient.
        span: which node of a backward pass is at work; 0 outside of backward passes.
        recorded: whether it is computed for autograd to go back through: inside of a backward pass, a recomputation.
    """

    at: int
    key: int
    size: int
    span: int = 0
    recorded: bool = False


@dataclass(frozen=True)
class Timeline:
    """What a phase holds over time.

    Attributes:
        peak: the most bytes held at once.
        at_peak: those bytes by part; their sum is the peak.
        rows: event number, milliseconds since the phase began, and bytes by part, in the order of ``PARTS``.
        activations: the most bytes that were saved for backward at once.
    """

    peak: int
    at_peak: dict[str, int]
    rows: list[list[float]]
    activations: int


def timeline(events: Sequence[Event], before: Known, after: Known, besides: Mapping[str, int]) -> Timeline:
    """Split what a phase holds.

    A storage that is among those known after the phase is of their part from its allocation on. One that becomes a
    gradient is of the optimizer. One that was allocated in a forward pass (or a recomputation) and is still there when
    that ends has been saved for backward. All others are transient. What is released and was not known before the
    phase was never counted, and is passed over. What lies where something else is allocated was released before: on a
    GPU, the profiler does not report releases outside of operations.

    Args:
        events: in the order of time.
        before: storages known before the phase.
        after: storages known after it.
        besides: bytes by part that are held throughout and lie in no known storage.
    """
    parts = _parts(events, after)
    held = dict.fromkeys(PARTS, 0) | dict(besides)
    for part, size in before.values():
        held[part] += size
    living: dict[int, tuple[str, int]] = dict(before)
    began = events[0].at if events else 0
    rows: list[list[float]] = [[0, 0.0, *held.values()]]
    for number, event in enumerate(events):
        if event.size > 0:
            part, size = living.get(event.key, ("transient", 0))
            held[part] -= size
            living[event.key] = parts[number], event.size
            held[parts[number]] += event.size
        elif event.size < 0 and event.key in living:
            part, size = living.pop(event.key)
            held[part] -= size
        else:
            continue
        rows.append([number + 1, round((event.at - began) / 1e6, 3), *held.values()])
    top = max(rows, key=lambda row: sum(row[2:]))
    at_peak = {part: int(size) for part, size in zip(PARTS, top[2:], strict=True)}
    saved = max(int(row[2 + PARTS.index("activation")]) for row in rows)
    return Timeline(sum(at_peak.values()), at_peak, _bounded(rows), saved)


def _parts(events: Sequence[Event], after: Known) -> dict[int, str]:
    """Find the part of every allocation, by its number among the events."""
    ends = _ends(events)
    born: dict[int, int] = {}
    died: dict[int, int] = {}
    gradients: set[int] = set()
    for number, event in enumerate(events):
        if event.size > 0:
            if event.key in born:
                died[born[event.key]] = number
            born[event.key] = number
        elif event.key in born and event.size < 0:
            died[born.pop(event.key)] = number
        elif event.key in born:
            gradients.add(born[event.key])
    lasting = {number: after[key][0] for key, number in born.items() if key in after}
    parts: dict[int, str] = {}
    for number, event in enumerate(events):
        if event.size <= 0:
            continue
        end = ends.get(number)
        if number in lasting:
            parts[number] = lasting[number]
        elif number in gradients:
            parts[number] = "optimizer"
        else:
            saved = end is not None and number in died and died[number] > end
            parts[number] = "activation" if saved else "transient"
    return parts


def _ends(events: Sequence[Event]) -> dict[int, int]:
    """Return for every allocation in a forward pass, or in a recomputation, the last event of that pass.

    A forward pass ends where a backward pass begins. A recomputation is what autograd records while one node of a
    backward pass is at work.
    """
    ends: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, event in enumerate(events):
        if event.span and event.recorded:
            last[event.span] = number
    following: int | None = None  # of the events from here on, the last before the next backward pass
    for number in range(len(events) - 1, -1, -1):
        event = events[number]
        if event.span:
            following = number - 1
            if event.recorded:
                ends[number] = last[event.span]
        elif following is not None:
            ends[number] = following
    return ends


def _bounded(rows: list[list[float]]) -> list[list[float]]:
    """Keep the fullest row of each of ``ROWS`` stretches, the first row and the last."""
    count = len(rows)
    if count <= ROWS:
        return rows
    cuts = [count * part // ROWS for part in range(ROWS + 1)]
    kept = [max(rows[a:b], key=lambda row: sum(row[2:])) for a, b in pairwise(cuts)]
    return [*([] if kept[0] is rows[0] else rows[:1]), *kept, *([] if kept[-1] is rows[-1] else rows[-1:])]


def text(phases: Mapping[str, Iterable[Sequence[Any]]]) -> str:
    """Write timelines as CSV: ``phase,event,ms``, then bytes by part."""
    lines = [",".join(("phase", "event", "ms", *PARTS))]
    lines += [",".join(map(str, (phase, *row))) for phase, rows in phases.items() for row in rows]
    return "\n".join(lines) + "\n"
