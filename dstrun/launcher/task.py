"""One run of a sweep, and how it ended: told from the files it left, whatever the launcher says."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrun.bounded import content
from dstrun.config import Experiment
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Busy

TAIL = 3
TAIL_BYTES = 1 << 16
"""Lines of a traceback that are shown for a failure."""

BUSY = "busy"
BUSY_CODE = 75
"""Exit code of a process that left its run to another; EX_TEMPFAIL of sysexits.h."""


class Stopped(Exception):
    """Thrown into a launcher's iterator: what is left is to be stopped."""


@dataclass(frozen=True)
class Exit:
    """How a launcher saw a task's process or job end.

    Attributes:
        how: in a few words, ``killed by SIGKILL``, ``SLURM: TIMEOUT``; ``busy`` where it left the run to another.
        log: where what it printed is, if not in the run's own folder.
    """

    how: str
    log: Path | None = None


@dataclass(frozen=True)
class Ending:
    """How a run stands after its task has ended; ``state`` as in ``status.json``, or ``lost`` or ``busy``."""

    id: str
    state: str
    message: str
    folder: Path
    log: Path
    top1: float | None = None

    @property
    def failed(self) -> bool:
        """Say whether there is no record, and nobody is working on one."""
        return self.state not in ("done", BUSY)

    @property
    def transient(self) -> bool:
        """Say whether the same run may end otherwise when tried again."""
        return self.state in ("failed", "lost")

    def tail(self) -> list[str]:
        """Give the last lines of the traceback; of the log, where a run left no word."""
        last = {"failed": self.folder / "error.txt", "lost": self.log}.get(self.state)
        try:
            text = content(last, TAIL_BYTES, last=True).decode(errors="replace") if last else ""
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-TAIL:]


class Task:
    """A run to be trained.

    Args:
        experiment: composed and checked.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.folder = RunFolder(experiment.config, experiment.choices)
        self.id, self.key = self.folder.id, str(self.folder.path)  # runs of two experiments may share an id
        self._before: dict[str, Any] = {}

    @property
    def log(self) -> Path:
        """Where the run's process prints."""
        return self.folder.path / "log.txt"

    @property
    def done(self) -> bool:
        """Say whether the run's record is there."""
        return (self.folder.path / "record.json").exists()

    def status(self) -> dict[str, Any]:
        """Read ``status.json``; empty where there is none."""
        try:
            return json.loads((self.folder.path / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def begin(self) -> None:
        """Note how the run stands before an attempt, so that what an earlier one left is not taken for its end."""
        self._before = self.status()

    def end(self, exit: Exit) -> Ending:
        """Tell how the attempt ended; one that left no word is put down as lost in ``status.json``."""
        if (record := self.folder.record()) is not None:
            return self._ending("done", "", top1=record["accuracy"]["top1"])
        status = self.status()
        state, message = status.get("state"), status.get("message") or ""
        told = status != self._before
        if told and state in ("failed", "diverged"):
            return self._ending(state, message)
        if told and state == "interrupted":
            return self._ending(state, message if exit.how == BUSY else f"{message} ({exit.how})")
        if exit.how == BUSY and state == "running":
            return self._ending(BUSY, f"process {status.get('pid')} on {status.get('host')} works on it")
        ending = self._ending("lost", exit.how)
        if exit.log is not None and not (told and self.log.exists()):
            ending = replace(ending, log=exit.log)
        self._put_down(ending)
        return ending

    def _ending(self, state: str, message: str, top1: float | None = None) -> Ending:
        return Ending(self.id, state, message, self.folder.path, self.log, top1)

    def _put_down(self, ending: Ending) -> None:
        """Say in ``status.json`` that the run was lost, unless somebody works on it."""
        status = self.status()
        try:
            with self.folder.owned():
                self.folder.status(**status | {"state": "lost", "message": ending.message, "eta_seconds": None})
        except (Busy, OSError):
            return


def cores() -> int:
    """Count the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
