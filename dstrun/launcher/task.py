"""One run of a sweep, and how it ended: read from its files, whatever the launcher reports."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrun.config.experiment import Experiment
from dstrun.record import sealed
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Busy, Lock, describe
from dstrun.system.bounded import content
from dstrun.system.trouble import ConfigError

TAIL = 3
TAIL_BYTES = 1 << 16
"""Lines of a traceback that are shown for a failure."""

BUSY = "busy"


class Stopped(Exception):
    """Thrown into a launcher's iterator: what is left is to be stopped."""


@dataclass(frozen=True)
class Exit:
    """How a launcher saw a task's process or job end.

    Attributes:
        how: in a few words, ``killed by SIGKILL``, ``SLURM: TIMEOUT``; ``busy`` where it left the run to another.
        log: where what it printed is, if not in the run's own folder.
        state: in which it said that it ended, whatever the files say, and ``message`` its sentence.
    """

    how: str
    log: Path | None = None
    state: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Ending:
    """How a run stands after its task has ended; ``state`` as in ``status.json``, or ``lost`` or ``busy``."""

    id: str
    state: str
    message: str
    folder: Path
    log: Path
    top1: float | None = None
    split: str | None = None

    def __float__(self) -> float:
        """Return the final top-1 accuracy on validation images, in percent, which a search maximizes.

        Raises:
            ValueError: there is none.
            KeyboardInterrupt: the run was asked to stop, and so the search.
        """
        if self.state == "interrupted":
            raise KeyboardInterrupt
        if self.top1 is None or self.split != "validation":
            raise ValueError(f"{self.id} is {self.state}, and has no accuracy on validation images")
        return self.top1

    @property
    def failed(self) -> bool:
        """Return whether there is no record, and nobody is working on one."""
        return self.state not in ("done", BUSY)

    @property
    def transient(self) -> bool:
        """Return whether the same run may end otherwise when tried again."""
        return self.state in ("failed", "lost")

    def tail(self) -> list[str]:
        """Return the last lines of the traceback; of the log, where a run left no word."""
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
        self.begun = False
        self._before: dict[str, Any] = {}

    @property
    def log(self) -> Path:
        """Where the run's process prints."""
        return self.folder.path / "log.txt"

    @property
    def done(self) -> bool:
        """Return whether the run's record is there, and its own; what keeps it from being read, the run says itself."""
        try:
            return self.folder.record() is not None
        except ConfigError:
            return False

    @property
    def ended(self) -> bool:
        """Return whether the run has said that it came to an end by itself."""
        return self.status().get("state") in ("failed", "diverged")

    def status(self) -> dict[str, Any]:
        """Read ``status.json``; empty where there is none, or it cannot be used."""
        return sealed.read_if_whole(self.folder.path / "status.json") or {}

    def said(self) -> dict[str, Any] | None:
        """Return the status of a run that trains in this attempt; ``None`` before it has one."""
        status = self.status()
        return status if status != self._before and status.get("state") == "running" else None

    def begin(self) -> None:
        """Note how the run stands before an attempt, so that what an earlier one left is not taken for its end."""
        self.begun, self._before = True, self.status()

    def end(self, exit: Exit) -> Ending:
        """Report how the attempt ended; one that left no word is put down as lost in ``status.json``."""
        try:
            record = self.folder.record()
            if record is not None:
                self.folder.tidy()
                accuracy = record["accuracy"]
                return self._ending("done", "", accuracy["top1"], accuracy.get("split"))
        except ConfigError as error:  # it may not be read, or is of another run
            return self._ending("failed", str(error))
        status = self.status()
        state, message = status.get("state"), status.get("message") or ""
        has_reported = status != self._before
        if has_reported and state in ("failed", "diverged"):
            return self._ending(state, message)
        if has_reported and state == "interrupted":
            return self._ending(state, message if exit.how in (BUSY, "") else f"{message} ({exit.how})")
        if BUSY in (exit.state, exit.how) and (owner := Lock(self.folder.path).owner()):
            return self._ending(BUSY, f"{describe(owner)} is running it")
        if exit.state in (BUSY, "failed", "diverged", "interrupted"):  # and the folder could not say so
            return self._ending(exit.state, exit.message)
        ending = self._ending("lost", "ended without a message" if exit.how in (BUSY, "") else exit.how)
        if exit.log is not None and not (has_reported and self.log.exists()):
            ending = replace(ending, log=exit.log)
        self._put_down(ending)
        return ending

    def _ending(self, state: str, message: str, top1: float | None = None, split: str | None = None) -> Ending:
        return Ending(self.id, state, message, self.folder.path, self.log, top1, split)

    def _put_down(self, ending: Ending) -> None:
        """Write to ``status.json`` that the run was lost, unless somebody is running it."""
        status = self.status()
        try:
            with self.folder.owned():
                self.folder.status(**status | {"state": "lost", "message": ending.message, "eta_seconds": None})
        except (Busy, ConfigError, OSError):
            return


def cores() -> int:
    """Count the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
