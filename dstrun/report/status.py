"""One row per run of a sweep: state, epoch, accuracy, ETA, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstrun.report import load
from dstrun.report.format import Column

STATES = ("done", "running", "lost", "interrupted", "diverged", "failed", "damaged")

COLUMNS = [
    Column("run"),
    Column("state"),
    Column("epoch", kind="progress", of="epochs"),
    Column("top1", kind="percent", digits=2),
    Column("eta_seconds", "ETA", kind="seconds"),
    Column("epoch_seconds", "epoch time", kind="seconds"),
    Column("peak_bytes", "peak memory", kind="bytes"),
    Column("host"),
    Column("message"),
]


def rows(path: Path | str, now: float) -> tuple[list[dict[str, Any]], list[Column]]:
    """Describe every run under a folder, sorted by folder; ``now`` is the unix time that heartbeats are held against.

    Raises:
        ConfigError: there is no such folder.
    """
    found = load.runs(path)
    return [describe(run, Path(path), now) for run in found], COLUMNS


def describe(run: load.Run, root: Path, now: float) -> dict[str, Any]:
    """Describe one run; its name is the folder below ``root``."""
    status, state = run.status, run.state_at(now)
    name = run.folder.relative_to(root).as_posix()
    message = status.get("message")
    if state == "damaged" and run.warnings:
        message = run.warnings[0]
    return {
        "run": run.folder.resolve().name if name == "." else name,
        "state": state,
        "epoch": status.get("epoch", run.get("config.epochs")),
        "epochs": status.get("epochs", run.get("config.epochs")),
        "top1": run.top1 if run.record else load.number(status.get("top1")),
        # A run that nobody works on has no time of arrival.
        "eta_seconds": load.number(status.get("eta_seconds")) if state == "running" else None,
        "epoch_seconds": load.number(status.get("epoch_seconds", run.get("seconds.epoch_median"))),
        "peak_bytes": load.number(run.get("memory.peak_bytes", status.get("peak_bytes"))),
        "host": status.get("host", run.get("env.host")),
        "message": message,
    }


def totals(described: Sequence[dict[str, Any]]) -> str:
    """Count the rows by state: ``27 runs: 20 done, 3 running, 1 lost``."""
    counts = Counter(row["state"] for row in described)
    order = [*STATES, *sorted(set(counts) - set(STATES))]
    parts = ", ".join(f"{counts[state]} {state}" for state in order if counts[state])
    return f"{len(described)} run{'' if len(described) == 1 else 's'}{': ' if parts else ''}{parts}"
