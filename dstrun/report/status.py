"""One row per run of a sweep: state, epoch, accuracy, ETA, memory; from the files that runs and sweeps leave."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from dstrun.config.option import nearest
from dstrun.record import sealed
from dstrun.record.valid import SILENT_SECONDS
from dstrun.report import load
from dstrun.report.format import Column, in_seconds
from dstrun.report.terminal import Block, fitting
from dstrun.system import safe
from dstrun.system.trouble import ConfigError

STATES = (
    "done", "running", "lost", "failed", "diverged", "damaged", "interrupted", "queued", "not started",
)  # fmt: skip

COLUMNS = [
    Column("run", head=True),
    Column("state", head=True),
    Column("epoch", kind="progress", of="epochs"),
    Column("top1", "top-1", kind="percent", digits=2),
    Column("eta_seconds", "ETA", kind="seconds"),
    Column("epoch_seconds", "epoch time", kind="seconds"),
    Column("peak_bytes", "peak memory", kind="bytes"),
    Column("host"),
    Column("job"),
    Column("message"),
]

TROUBLE = ("lost", "failed", "diverged", "damaged")
STYLES = {
    "done": "green", "running": "cyan", "interrupted": "yellow", "queued": "dim", "not started": "dim",
    **dict.fromkeys(TROUBLE, "red"),
}  # fmt: skip
"""Of states, at a terminal."""

ASK_SECONDS = 30.0
"""How often SLURM is asked for jobs whose client has gone, and the file system for its time."""
FORGOTTEN_SECONDS = 86400.0
"""After so long without its client a sweep is over, whatever the queue says or does not say."""

SORTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "run": lambda row: 0,
    "state": lambda row: _urgency(row),
    "top1": lambda row: inf if row["top1"] is None else -row["top1"],
    "eta": lambda row: inf if row["eta_seconds"] is None else row["eta_seconds"],
}
"""Orders of rows; equal ones stay in the order of their folders."""


def _urgency(row: dict[str, Any]) -> tuple[float, float]:
    """Put what needs looking at first and done runs last, the latest of them first."""
    if row["state"] == "done":
        return inf, -row["heartbeat"]
    return STATES.index(row["state"]) if row["state"] in STATES else len(STATES), 0.0


@dataclass
class _Seen:
    """A run as it was last read, from a ``status.json`` of that ``stamp``."""

    stamp: tuple[int, ...] | None
    order: list[tuple[float, str]]
    run: load.Run
    row: dict[str, Any]


@dataclass
class Submission:
    """What a sweep's client has written: the ``job`` of each run by id, and whether any of them may still start.

    ``open`` is null where the queue alone knows: the client has gone, and its jobs may not.
    """

    open: bool | None
    jobs: dict[str, str | None] = field(default_factory=dict)


class Sweep:
    """The runs below some folders. Asked again, it reads only what has changed since, and never a finished run."""

    def __init__(self, roots: Sequence[Path | str]) -> None:
        self.roots = [Path(root) for root in roots]
        self._seen: dict[str, _Seen] = {}
        self._sweeps: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._asked: tuple[float, frozenset[str], Collection[str] | None] = (-inf, frozenset(), None)
        self._skew: dict[Path, tuple[float, float]] = {}

    def rows(self, now: float) -> list[dict[str, Any]]:
        """Describe every run, sorted by folder; ``now`` is the unix time that heartbeats are held against.

        Besides the columns, a row says when its status was written (``heartbeat``), and whether something is still to
        come of the run without anybody's doing (``awaited``): it trains, or a sweep that has not ended has it.

        Raises:
            ConfigError: there is no such folder.
        """
        with load.uncollected():
            return [row for root in self.roots for row in self._below(root, now)]

    def _below(self, root: Path, now: float) -> list[dict[str, Any]]:
        runs: dict[str, _Seen] = {}
        waiting: dict[str, tuple[bool | None, str | None]] = {}
        for folder, names in load.find(root, self._seen):
            if names and not load.is_run(names):
                sweeps = sorted(self._read_sweeps(folder, now), key=lambda sweep: (False, None, True).index(sweep.open))
                waiting |= {f"{folder}/{run}": (sweep.open, job) for sweep in sweeps for run, job in sweep.jobs.items()}
            elif seen := self._look(folder, names, root, now):
                runs[folder] = seen
        self._hold_against_files(root, runs, now)
        left = {f for f in waiting if f not in runs or runs[f].row["state"] in ("interrupted", "lost")}
        if unsure := {job for f in left if waiting[f][0] is None and (job := waiting[f][1])}:
            coming = self._coming(unsure)
            waiting |= {
                f: (job is not None if coming is None else job in coming, job)
                for f, (open, job) in waiting.items()
                if open is None
            }
        for folder, seen in runs.items():
            again = seen.row["state"] in ("interrupted", "lost") and bool(waiting.get(folder, (False,))[0])
            seen.row["awaited"] = seen.row["state"] == "running" or again
        placed = [(seen.order, seen.row) for seen in runs.values()]
        placed += [
            (load.natural(_name(f, root)), _planned(f, root, bool(waiting[f][0]), waiting[f][1]))
            for f in waiting
            if f not in runs
        ]
        return [row for _, row in sorted(placed, key=lambda pair: pair[0])]

    def _hold_against_files(self, root: Path, runs: dict[str, _Seen], now: float) -> None:
        """Describe runs anew whose state hangs on a clock, where that of the files is not this machine's."""
        doubtful = [
            folder
            for folder, seen in runs.items()
            if seen.run.state == "running"
            and seen.run.beat is not None
            and abs(now - seen.run.beat) > SILENT_SECONDS / 2
        ]
        if not doubtful:
            return
        measured, skew = self._skew.get(root, (-inf, 0.0))
        if time.monotonic() - measured > ASK_SECONDS:
            skew = ahead(root)
            self._skew[root] = time.monotonic(), skew
        if abs(skew) > 1:
            for folder in doubtful:
                runs[folder].row = describe(runs[folder].run, _name(folder, root), now + skew)

    def _coming(self, jobs: set[str]) -> Collection[str] | None:
        """Return which jobs SLURM may still start or runs, asked now and then; ``None`` where it does not answer."""
        at, asked, answer = self._asked
        if time.monotonic() - at > ASK_SECONDS or not jobs <= asked:
            from dstrun.launcher import queue

            answer = queue.coming(jobs)
            self._asked = time.monotonic(), frozenset(jobs), answer
        return answer

    def _look(self, folder: str, names: Collection[str], root: Path, now: float) -> _Seen | None:
        """Read a run if it may be another than before; None where it is none any more."""
        seen = self._seen.get(folder)
        if seen is not None and seen.run.state == "done":
            return seen
        stamp = _stamp(f"{folder}/status.json")
        if seen is not None and stamp is None and seen.stamp is not None:
            del self._seen[folder]
            return None
        # A lost run may have left its record behind, and its status as it was.
        if seen is None or stamp != seen.stamp or seen.row["state"] == "lost":
            with suppress(OSError):  # it may have gone this very moment
                names = names or os.listdir(folder)
            run, name = load.read(Path(folder), names, records=False), _name(folder, root)
            order = seen.order if seen else load.natural(name)
            seen = self._seen[folder] = _Seen(stamp, order, run, describe(run, name, now))
        elif seen.run.state == "running":
            seen.row = describe(seen.run, _name(folder, root), now)
        return seen

    def _read_sweeps(self, folder: str, now: float) -> Iterator[Submission]:
        """Read what the clients of sweeps have written; a file that cannot be read is told of once."""
        with suppress(OSError), os.scandir(f"{folder}/.sweeps") as listing:
            for path in sorted(entry.path for entry in listing if entry.name.endswith(".json")):
                stamp = _stamp(path)
                known = stamp is None or self._sweeps.get(path, (None,))[0] == stamp
                if stamp is not None and not known and (said := sealed.read_if_whole(path)) is not None:
                    self._sweeps[path] = stamp, said
                if path in self._sweeps:
                    stamp, file = self._sweeps[path]
                    yield submission(file, stamp[0] / 1e9, now)


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes with a file, or None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def submission(file: dict[str, Any], beat: float, now: float) -> Submission:
    """Read from a sweep's file what is still to come of it.

    Args:
        file: as its client has written it.
        beat: when it was touched last.
        now: the time that is held against.
    """
    runs = file.get("runs") if isinstance(file.get("runs"), list) else []
    jobs = {run["id"]: run.get("job") for run in runs or () if isinstance(run, dict) and isinstance(run.get("id"), str)}
    silent = abs(now - beat) if file.get("beats") else 0.0
    # A client that was killed cannot say so. With a local one no run starts any more; SLURM's jobs do not need theirs.
    lives = not load.gone(file) and silent <= SILENT_SECONDS
    if file.get("ended") is not None or silent > FORGOTTEN_SECONDS:
        return Submission(False, jobs)
    return Submission(True if lives else False if file.get("launcher") == "local" else None, jobs)


def ahead(folder: Path) -> float:
    """Measure by how many seconds the clock of a file system is ahead of this machine's; 0 where nothing is written."""
    probe = folder / f".now.{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime - time.time()
    except OSError:
        return 0.0
    finally:
        with suppress(OSError):
            probe.unlink()


def describe(run: load.Run, name: str, now: float) -> dict[str, Any]:
    """Describe one run."""
    status, state = run.status, run.state_at(now)
    return {
        "run": name,
        "state": state,
        "epoch": load.number(status.get("epoch", run.get("config.epochs"))),
        "epochs": load.number(status.get("epochs", run.get("config.epochs"))),
        "top1": run.top1 if run.record else load.number(status.get("top1")),
        # A run that nobody works on has no time of arrival.
        "eta_seconds": load.number(status.get("eta_seconds")) if state == "running" else None,
        "epoch_seconds": load.number(status.get("epoch_seconds", run.get("seconds.epoch_median"))),
        "peak_bytes": load.number(run.get("memory.peak_bytes", status.get("peak_bytes"))),
        "host": status.get("host", run.get("env.host")),
        "job": status.get("job"),
        "message": _message(run, state),
        "heartbeat": load.number(status.get("heartbeat")) or 0.0,
    }


def _message(run: load.Run, state: str) -> str | None:
    """Return how a run ended, and what of its files is damaged."""
    if run.warnings:
        return "; ".join(filter(None, (_ending(run, state), run.warnings[0])))
    return _ending(run, state)


def _ending(run: load.Run, state: str) -> str | None:
    if state != "lost":
        message = run.status.get("message")
        return None if message is None else str(message)
    if load.gone(run.status):
        return f"process {run.status['pid']} has ended without a final status"
    heartbeat = load.number(run.status.get("heartbeat")) and (run.beat or load.number(run.status.get("heartbeat")))
    return (
        f"no heartbeat since {time.strftime('%F %T', time.localtime(heartbeat))}" if heartbeat else "no heartbeat yet"
    )


def _planned(folder: str, root: Path, open: bool, job: str | None) -> dict[str, Any]:
    """Describe a run that a sweep has and that has left nothing yet, or nothing that can be read."""
    known = {"state": "queued" if open else "not started", "job": job, "heartbeat": 0.0, "awaited": open}
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        known |= {"state": "damaged", "message": "its folder cannot be read", "awaited": False}
    return dict.fromkeys(column.key for column in COLUMNS) | {"epochs": None, "run": _name(folder, root)} | known


def _name(folder: str, root: Path) -> str:
    """Name a run by its folder below ``root``."""
    return folder.removeprefix(str(root)).lstrip("/") or root.resolve().name


def chooser(states: str | None, sort: str) -> Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]:
    """Return a function that selects rows by state (``running,failed``; None: all) and orders them by one of ``SORTS``.

    Raises:
        ConfigError: an unknown state.
    """
    wanted = None if states is None else {state.strip() for state in states.split(",")}
    for state in sorted((wanted or set()) - set(STATES)):
        raise ConfigError(f"--state {state} is not known: choose {', '.join(STATES)}{nearest(state, STATES)}")
    return lambda rows: sorted((row for row in rows if wanted is None or row["state"] in wanted), key=SORTS[sort])


def blocks(rows: Sequence[dict[str, Any]], width: int) -> list[Block | str]:
    """Lay rows out for a terminal: without columns that no row has, and messages below, where they have room.

    Where that is too wide for it, names lose the beginning that all have, which stands above them.
    """
    shown = [c for c in COLUMNS if c.key != "message" and any(row[c.key] is not None for row in rows)]
    beginning = "" if fitting(rows, shown, width) == shown else common([row["run"] for row in rows])
    rows = [row | {"run": row["run"].removeprefix(beginning)} for row in rows]
    said = [f"- {row['run']}: {safe.line(str(row['message']))}" for row in rows if row["message"]]
    table = Block(rows, shown, f"{beginning}..." if beginning else "", {"state": STYLES})
    return [table, *(["\n".join(said)] if said else [])]


def common(names: Sequence[str]) -> str:
    """Return the beginning that all of several names have, whole words of it."""
    return re.sub(r"[^-/]*$", "", os.path.commonprefix(names)) if len(names) > 1 else ""  # noqa: RUF071  letters


def count(rows: Iterable[dict[str, Any]]) -> str:
    """Count rows by state: ``20 done, 3 running, 1 lost``."""
    counts = Counter(row["state"] for row in rows)
    order = [*STATES, *sorted(set(counts) - set(STATES))]
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def totals(rows: Sequence[dict[str, Any]]) -> str:
    """Count all rows, and estimate the whole: ``27 runs: 20 done, 7 running; 3h 05m left``."""
    counts, seconds = count(rows), left(rows)
    text = f"{len(rows)} run{'' if len(rows) == 1 else 's'}{': ' if counts else ''}{counts}"
    return text if seconds is None else f"{text}; {in_seconds(seconds)} left"


def left(rows: Sequence[dict[str, Any]]) -> float | None:
    """Estimate the seconds until nothing is awaited any more: what is left of all runs over those that train now.

    A run without an epoch yet is taken to be as long as others are (median). None where nothing trains, or nothing is
    known of any run's pace.
    """
    whole = [row["epochs"] * row["epoch_seconds"] for row in rows if row["epochs"] and row["epoch_seconds"]]
    workers = sum(row["state"] == "running" for row in rows)
    if not workers or not whole:
        return None
    from statistics import median

    typical = median(whole)
    times = [_run_left(row, typical) for row in rows if row["awaited"]]
    return max(sum(times) / workers, *(_run_left(row, typical) for row in rows if row["state"] == "running"))


def _run_left(row: dict[str, Any], typical: float) -> float:
    if row["eta_seconds"] is not None:
        return row["eta_seconds"]
    whole = row["epochs"] * row["epoch_seconds"] if row["epochs"] and row["epoch_seconds"] else typical
    return whole * (1 - (row["epoch"] or 0) / row["epochs"]) if row["epochs"] else whole
