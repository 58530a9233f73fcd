"""A run on a page: its row, its details, and its failure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dstrun.report.compare import really
from dstrun.report.format import Column, cell
from dstrun.report.load import EMERGES, Run, number
from dstrun.report.status import STATES
from dstrun.system.bounded import content

TROUBLE = ("failed", "diverged", "lost", "damaged")
LAST = {"failed": "error.txt", "lost": "log.txt"}
"""What says most about how a run ended."""
TAIL_LINES, TAIL_BYTES = 12, 8192
LISTED = 20
"""Runs of one failure that are shown one by one."""
COMMIT = 8

COLUMNS = [
    Column("top1", "top-1 (%)", "number", digits=2),
    Column("sparsity", "sparsity", "text"),
    Column("seed", "seed", "number"),
    Column("train_flops", "train FLOPs", "flops"),
    Column("peak_bytes", "peak memory", "bytes"),
    Column("seconds", "train time", "seconds"),
]
"""Those with numbers. The first stands beside the run, where a phone shows it; the others after state and method."""


@dataclass(frozen=True)
class Entry:
    """A run as the page has it. ``link`` leads to its folder, None where there is none; ``values`` by column key."""

    run: Run
    state: str
    progress: str
    link: str | None
    apart: str
    values: dict[str, Any]
    differing: list[tuple[str, str]]
    files: list[str]

    @property
    def id(self) -> str:
        """Name the run."""
        return self.run.id

    @property
    def label(self) -> str | None:
        """Name its method."""
        return self.run.get("label")

    @property
    def numbers(self) -> list[tuple[str, Any]]:
        """Return what the columns show, each with what they are sorted by where that is something else."""
        texts = [cell(self.values | {"sparsity": self.sparsity}, column) for column in COLUMNS]
        return [(text, _order(self.values[c.key], c)) for text, c in zip(texts, COLUMNS, strict=True)]

    @property
    def sparsity(self) -> str | None:
        """Return what was asked for, and what it is where that is another; or what training found."""
        asked = self.values["sparsity"]
        if asked is None:
            return None
        if asked == EMERGES:
            return f"{100 * self.run.realised:.1f}% found"
        return f"{100 * asked:g}%{really([self.run])}"

    @property
    def commit(self) -> str | None:
        """Return which code trained the run; ``*`` where it had changes that were not committed."""
        commit = self.run.get("code.git_commit")
        return commit and commit[:COMMIT] + ("*" if self.run.get("code.dirty") else "")

    @property
    def command(self) -> str | None:
        """Return the command that makes the run, where its record has it."""
        words = self.run.get("command")
        return shlex.join(["dstrun", *map(str, words)]) if isinstance(words, list) else None


def _order(value: Any, column: Column) -> float | None:
    """Return the number to sort by, where the text has a unit that changes."""
    return round(value, 3) if value is not None and column.kind in ("bytes", "seconds") else None


def entry(run: Run, state: str, base: Path, apart: str, flat: Mapping[str, str], differing: Sequence[str]) -> Entry:
    """Describe a run; ``flat`` are its settings, ``differing`` those that some run has otherwise.

    Args:
        run: as ``settings.known`` gives it.
        state: at the time of the page.
        base: the folder that links start from.
        apart: what sets the run apart from others of its method.
        flat: settings by key.
        differing: keys.
    """
    files: list[str] = []
    with suppress(OSError):
        files = sorted(name for name in os.listdir(run.folder) if not name.startswith("."))
    known = bool(run.get("config"))
    values = {
        "sparsity": run.sparsity if known else None,
        "seed": run.get("seed"),
        "top1": run.top1,
        "train_flops": number(run.get("flops.train")),
        "peak_bytes": number(run.get("memory.peak_bytes", run.status.get("peak_bytes"))),
        "seconds": number(run.get("seconds.train")),
    }
    epoch, epochs = run.status.get("epoch"), run.status.get("epochs")
    progress = f"{epoch}/{epochs}" if state != "done" and epochs else ""
    differs = [(key, flat[key]) for key in differing if key in flat]
    return Entry(run, state, progress, link(run.folder, base) if files else None, apart, values, differs, files)


def link(folder: Path, base: Path) -> str:
    """Return the way from a folder to another as a page says it."""
    return quote(Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()) + "/"


@dataclass(frozen=True)
class Failure:
    """Runs that ended alike: ``shown`` are the first of them, each with the last lines it left; ``more`` are others."""

    state: str
    message: str
    count: int
    shown: list[tuple[Entry, str, str]]

    @property
    def more(self) -> int:
        """Count the runs that are not shown one by one."""
        return self.count - len(self.shown)


def failures(entries: Sequence[Entry], messages: Sequence[str | None]) -> list[Failure]:
    """Sort runs in trouble by how they ended, the most urgent state first; ``messages`` are those of the entries."""
    ended = [
        (STATES.index(e.state), message or "left no message", i, e)
        for i, (e, message) in enumerate(zip(entries, messages, strict=True))
        if e.state in TROUBLE
    ]
    found = []
    for (state, message), members in groupby(sorted(ended, key=lambda x: x[:3]), key=lambda x: x[:2]):
        runs = [e for *_, e in members]
        shown = [(e, *tail(e)) for e in runs[:LISTED]]
        found.append(Failure(STATES[state], message, len(runs), shown))
    return found


def tail(failed: Entry) -> tuple[str, str]:
    """Return the file that says most about a run's end, and its last lines; empty where there is none."""
    name = LAST.get(failed.state, "")
    try:
        text = content(failed.run.folder / name, TAIL_BYTES, last=True).decode(errors="replace") if name else ""
    except OSError:
        return "", ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return name, "\n".join(lines[-TAIL_LINES:])
