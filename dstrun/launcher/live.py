"""Live display of a sweep: one line per run on a terminal, else a line now and then; on stderr.

All is read from the status files of the runs, whoever trains them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dstrun.launcher.task import Ending, Task
from dstrun.system.progress import draws, say
from dstrun.system.wording import in_seconds

MINUTE = 60.0
"""How often a log says how far runs are."""
NAMED = 8
"""Runs that a log names each time."""
RUNS_A_SECOND = 50
"""Status files that are read in a second at most: the disk may be one of a network."""


class Live:
    """Follows the runs of a sweep.

    Args:
        tasks: of the sweep.
        endings: of those that have ended, by key.
        clock: seconds.
    """

    def __init__(
        self, tasks: Sequence[Task], endings: dict[str, Ending], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.tasks, self.endings, self._clock = tasks, endings, clock
        self._active: dict[str, Task] = {}
        self._told: set[str] = set()
        self._spoken = clock()
        self._live: Any = None
        self._console: Any = None
        self._frame: tuple[float, Any] = (float("-inf"), None)

    def __enter__(self) -> Live:
        """Draw, where stderr is a terminal."""
        if draws():
            from rich.console import Console
            from rich.live import Live as RichLive

            console = self._console = Console(stderr=True, highlight=False)
            self._live = RichLive(
                console=console, get_renderable=self._drawn, refresh_per_second=2, transient=True, redirect_stdout=False
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the terminal of what is drawn."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def start(self, tasks: Sequence[Task], waiting: bool = False) -> None:
        """Follow runs from now on; those that are ``waiting`` in a queue are told once they train."""
        for task in tasks:
            self._active[task.key] = task
            self._told.discard(task.key)
            if not waiting:
                self._tell_start(task)

    def end(self, task: Task) -> None:
        """Follow a run no longer."""
        self._active.pop(task.key, None)

    def look(self) -> None:
        """Print which runs have begun to train, and every minute how far they are, where no terminal shows it."""
        if self._live is not None or (not (late := self._clock() - self._spoken >= MINUTE) and self._all_told()):
            return
        rows = [row for task in list(self._active.values()) if (row := progress(task)) is not None]
        for row in rows:
            self._tell_start(row["task"])
        if late:
            self._spoken = self._clock()
            for row in rows[:NAMED]:
                say(f"  {row['run']}: {how_far(row)}")
            if len(rows) > NAMED:
                say(f"  ... and {len(rows) - NAMED:,} more running")

    def _all_told(self) -> bool:
        return self._told.issuperset(self._active)

    def _tell_start(self, task: Task) -> None:
        if task.key not in self._told:
            self._told.add(task.key)
            if self._live is None:
                say(f"[{len(self.endings)}/{len(self.tasks)}] {task.id}: started")

    def _drawn(self) -> Any:
        """Lay out how runs stand; read anew only as often as a disk of a network bears."""
        at, drawn = self._frame
        if self._clock() - at >= max(0.5, len(self._active) / RUNS_A_SECOND):
            with suppress(OSError, RuntimeError):  # a folder has gone, or a run ended this very moment
                drawn = self.frame(self._console.width, max(3, self._console.height - 2))
            self._frame = self._clock(), drawn
        return drawn or ""

    def frame(self, width: int, height: int) -> Any:
        """Lay out the runs that train now in so many lines of so many characters, and count all."""
        from rich.console import Group

        from dstrun.report.status import totals
        from dstrun.report.watch import frame

        found = [(task, progress(task)) for task in list(self._active.values())]
        now = [row or _row(task, "starting") for task, row in found if row or task.key in self._told]
        training = {row["task"].key for row in now}
        others = [
            _row(task, self.endings[task.key].state if task.key in self.endings else "queued")
            for task in self.tasks
            if task.key not in training
        ]
        counted = [row | {"state": "running"} if row["state"] == "starting" else row for row in now]
        return Group(*frame(now, totals([*counted, *others]), width, height))


def _row(task: Task, state: str) -> dict[str, Any]:
    """Describe a run that has nothing to say of itself."""
    from dstrun.report.status import COLUMNS

    known = {"run": task.id, "state": state, "heartbeat": 0.0, "awaited": state == "queued", "task": task}
    return dict.fromkeys([*(column.key for column in COLUMNS), "epochs"]) | known


def progress(task: Task) -> dict[str, Any] | None:
    """Describe a run that trains, as ``dstrun status`` does; ``None`` where this attempt has not said anything yet."""
    said = task.said()
    if said is None:
        return None
    keys = ("epoch", "epochs", "top1", "eta_seconds", "epoch_seconds", "peak_bytes", "host", "job")
    known = {key: said.get(key) for key in keys}
    return _row(task, str(said.get("state"))) | known | {"awaited": True}


def how_far(row: dict[str, Any]) -> str:
    """Return how far a run is: ``epoch 3/10, top-1 50.10 %, ETA 1m 20s``."""
    parts = [f"epoch {row['epoch'] or 0}/{row['epochs']}"]
    parts += [f"top-1 {row['top1']:.2f} %"] if row["top1"] is not None else []
    parts += [f"ETA {in_seconds(row['eta_seconds'])}"] if row["eta_seconds"] is not None else []
    return ", ".join(parts)
