"""The sweeps behind a page: their configuration, time and state."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrun.record import sealed
from dstrun.report.format import in_seconds
from dstrun.report.load import Run, find, natural, number
from dstrun.report.status import count, submission


@dataclass(frozen=True)
class Note:
    """What the client of a sweep has written into ``file``; ``jobs`` has the run ids of the sweep."""

    folder: Path
    file: dict[str, Any]
    open: bool
    jobs: dict[str, str | None]


def notes(roots: Iterable[Path], runs: Iterable[Run]) -> list[Note]:
    """Read the notes below the folders, the earliest first; one that cannot be read is told of.

    Raises:
        ConfigError: there is no such folder.
    """
    known = {str(run.folder) for run in runs}
    folders = {folder for root in roots for folder, names in find(root, known) if ".sweeps" in names}
    found = []
    for path in sorted(file for folder in folders for file in Path(folder).glob(".sweeps/*.json")):
        with suppress(OSError):  # it may go this very moment
            if (file := sealed.read_if_whole(path)) is None:
                continue
            asked = submission(file, path.stat().st_mtime, time.time())
            found.append(Note(path.parents[1], file, asked.open is not False, asked.jobs))
    return sorted(found, key=lambda note: number(note.file.get("started")) or 0.0)


def planned(found: Iterable[Note]) -> list[Run]:
    """Return the runs that sweeps have and that have left nothing yet: ``queued``, or ``not started`` by any."""
    missing: dict[Path, Run] = {}
    for note in sorted(found, key=lambda note: note.open):
        for name, job in note.jobs.items():
            folder = note.folder / name
            if not folder.exists():
                missing[folder] = Run(folder, name, "queued" if note.open else "not started", None, {"job": job})
    return sorted(missing.values(), key=lambda run: natural(str(run.folder)))


def described(found: Iterable[Note], states: dict[Path, str]) -> Iterator[dict[str, str]]:
    """Write out notes, but of sweeps with none of the runs on the page; ``states`` are theirs by folder."""
    for note in found:
        command = note.file.get("command")
        started, ended = (number(note.file.get(key)) for key in ("started", "ended"))
        here = [{"state": states[note.folder / name]} for name in note.jobs if note.folder / name in states]
        if here:
            yield {
                # The first word is the path of the program.
                "command": shlex.join(["dstrun", *map(str, command[1:])]) if isinstance(command, list) else "not known",
                "started": at(started),
                "took": in_seconds(ended - started) if started and ended else "not ended",
                "launcher": str(note.file.get("launcher", "not known")),
                "host": str(note.file.get("host", "not known")),
                "runs": count(here),
            }


def at(seconds: float | None) -> str:
    """Format a unix time, in UTC, so that a page is the same wherever it is made."""
    return "not known" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def newest(runs: Iterable[Run], found: Sequence[Note]) -> float | None:
    """Return the unix time of the last sign of life that was found."""
    times = [number(run.status.get("heartbeat")) for run in runs]
    times += [number(note.file.get(key)) for note in found for key in ("started", "ended")]
    return max((seconds for seconds in times if seconds), default=None)
