"""What the pretend device would have done: kernels launched, waits of the host and copies, each with its place.

A launch is an ATen call that computes; a GPU may need several kernels for one. A wait is where the host reads what the
device has yet to compute. A copy is between host and device; unless its memory is pinned, it is a wait too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

import dstrun

ROOT = str(Path(dstrun.__file__).parent) + "/"
APART = (str(Path(torch.__file__).parents[1]) + "/", str(Path(__file__).parent / "cuda_"), __file__)

Places = Counter[tuple[str, str]]
"""How often, by what it was and the place in the code that asked for it."""


@dataclass
class Tally:
    """What was done while it was kept."""

    launches: Places = field(default_factory=Counter)
    waits: Places = field(default_factory=Counter)
    copies: Places = field(default_factory=Counter)

    @property
    def totals(self) -> tuple[int, int, int]:
        """Return launches, waits and copies."""
        return self.launches.total(), self.waits.total(), self.copies.total()

    def told(self) -> str:
        """Return waits and copies by place, most frequent first."""
        lines = [(count, kind, *key) for kind in ("waits", "copies") for key, count in getattr(self, kind).items()]
        return "\n".join(f"{count} {kind}: {what} at {where}" for count, kind, what, where in sorted(lines)[::-1])


_kept: list[Tally] = []


@contextmanager
def counting() -> Iterator[Tally]:
    """Keep a tally of what happens inside."""
    kept = Tally()
    _kept.append(kept)
    try:
        yield kept
    finally:
        _kept.remove(kept)


def place() -> str:
    """Return file and line of the innermost frame of dstrun, else of the innermost that is neither torch's nor ours."""
    frame, other = sys._getframe(1), "?"
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT):
            return f"{name.removeprefix(ROOT)}:{frame.f_lineno}"
        if other == "?" and not name.startswith(APART):
            other = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return other


def launch(what: str) -> None:
    """Note a kernel."""
    for kept in _kept:
        kept.launches[what, place()] += 1


def wait(what: str) -> None:
    """Note that the host waits for the device."""
    for kept in _kept:
        kept.waits[what, place()] += 1


def copy(what: str, waits: bool = True) -> None:
    """Note a copy between host and device; ``waits`` says whether the host stands still meanwhile."""
    for kept in _kept:
        kept.copies[what, place()] += 1
    if waits:
        wait(what)
