"""One slot on a machine: its clock, what was found so far, and the log."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_phases.child import Found
from gpu_phases.estimates import estimate
from gpu_phases.kit import KIT, read

STATES = {True: "passed", False: "failed", None: "skipped"}


@dataclass(frozen=True)
class Phase:
    """A part of a slot: its name, its share of the time that is left for it and those after it, and what it does.

    It gets ``least`` seconds, if there are as many.
    ``do`` gets the slot and a deadline; it returns ``False`` where it had to leave something out.
    """

    name: str
    share: float
    do: Callable[[Slot, float], bool | None]
    least: float = 0.0


@dataclass
class Slot:
    """What the phases share.

    Attributes:
        out: where results are packed.
        work: a folder of this machine for everything else.
        device: ``cuda`` or ``cpu``.
        ends: when all has to be packed, by ``time.monotonic``.
        card: name of the device.
        best: how many runs are trained at once.
        phase: the one under way.
        facts: of the machine.
        checks: how each check went: ``state``, ``told``.
        rows: numbers that were measured.
        phases: how each phase went.
        said: what is said once.
    """

    out: Path
    work: Path
    device: str
    ends: float
    card: str = ""
    best: int = 1
    phase: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    checks: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, Found] = field(default_factory=dict)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    commit: str = field(default_factory=lambda: os.environ.get("DSTRUN_COMMIT", ""))

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.lock = threading.RLock()
        self.earlier = self._earlier()

    @property
    def results(self) -> Path:
        """Return the folder of runs, those of earlier slots among them."""
        return self.work / "results"

    @property
    def root(self) -> Path:
        """Return the folder of images."""
        return KIT / "data"

    def left(self) -> float:
        """Return the seconds until everything has to be packed."""
        return self.ends - time.monotonic()

    def say(self, text: str) -> None:
        """Print a line and keep it in the log."""
        line = f"{time.monotonic() - self.began:6.1f}  {text}"
        print(line, flush=True)
        with self.lock, open(self.out / "log.txt", "a") as log:
            log.write(f"{line}\n")

    def say_once(self, text: str) -> None:
        """Print a line unless it was printed before."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def check(self, name: str, state: str, told: str) -> None:
        """Note how a check went, and say it."""
        with self.lock:
            self.checks[name] = {"state": state, "told": told}
        self.say(f"{state:<8}{name}: {told}")

    def hear(self, found: Found) -> None:
        """Note what a child has found."""
        if "check" in found:
            self.check(found["check"], STATES[found["holds"]], found["told"])
        elif "row" in found:
            with self.lock:
                self.rows[found["row"]] = {**found, "phase": self.phase}
            note = f"  {found['note']}" if found["note"] else ""
            self.say(f"{found['row']}: {found['value']:.4g} {found['unit']}{note}")
        elif "fact" in found:
            with self.lock:
                self.facts[found["fact"]] = str(found["value"])
            self.say(f"{found['fact']}: {found['value']}")

    def done_before(self, name: str) -> str | None:
        """Return what an earlier slot told of a check that passed there, with this commit on such a card."""
        found = self.earlier.get("checks", {}).get(name, {}) if self._alike() else {}
        return found.get("told") if found.get("state") == "passed" else None

    def measured_before(self, phase: str) -> bool:
        """Adopt the numbers of an earlier slot whose phase went to its end, with this commit on such a card."""
        before = self._alike() and self.earlier.get("phases", {}).get(phase, {}).get("state") == "done"
        if before:
            self.rows |= {row["row"]: row for row in self.earlier.get("rows", []) if row["phase"] == phase}
            self.best = self.earlier.get("best", 1)
        return bool(before)

    def told(self) -> dict[str, Any]:
        """Return everything that was found, for ``checks.json``."""
        with self.lock:
            facts = {"commit": self.commit, "card": self.card, "device": self.device, "best": self.best}
            rows = list(self.rows.values())
            return {**facts, "facts": self.facts, "phases": self.phases, "checks": self.checks, "rows": rows}

    def table(self) -> str:
        """Return the numbers as CSV, beside what was estimated before anything was measured."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "value", "unit", "estimate", "note", "card", "commit"])
        with self.lock:
            for name, found in self.rows.items():
                value = f"{found['value']:.6g}"
                expected = estimate(name) if self.device == "cuda" else ""
                writer.writerow([name, value, found["unit"], expected, found["note"], self.card, self.commit])
        return text.getvalue()

    def _alike(self) -> bool:
        same = (self.earlier.get("commit"), self.earlier.get("card")) == (self.commit, self.card)
        return same and bool(self.commit) and "+" not in self.commit

    @staticmethod
    def _earlier() -> dict[str, Any]:
        try:
            return json.loads(read(KIT / "resume" / "checks.json") or "{}")
        except ValueError:
            return {}
