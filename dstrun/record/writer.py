"""Files that are whole or absent, however a process ends."""

from __future__ import annotations

import csv
import errno
import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstrun.trouble import FULL

LEFT_OVER = ".tmp"
"""How the name of a file ends that is not yet whole."""


def write_atomic(path: Path, content: bytes | str, *, keep: bool = False, squeeze: bool = False) -> None:
    """Replace a file: written beside it, flushed to disk, then renamed over it.

    Args:
        path: of the file.
        content: its bytes or its text.
        keep: whether the file that was there becomes ``previous(path)``.
        squeeze: whether, where the disk has no room for a second file, the first is overwritten: for a few bytes that
            have to be said just then.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{LEFT_OVER}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, previous(path))
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)  # half a file must not fill a disk that is full
        if squeeze and isinstance(error, OSError) and error.errno in FULL and path.exists():
            return _overwrite(path, data)
        raise


def _overwrite(path: Path, data: bytes) -> None:
    """Write over a file within the room it has."""
    with open(path, "r+b", buffering=0) as file:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.truncate()


def previous(path: Path) -> Path:
    """Say where the file before goes: ``checkpoint.previous.pt``."""
    return path.with_suffix(f".previous{path.suffix}")


def sweep_left_over(folder: Path, age: float = 0.0) -> None:
    """Remove what killed processes were about to write, and what they looked at the time with.

    Args:
        folder: of a run.
        age: seconds; younger ones are left to whoever may be writing them. Notes that are being taken over are at any
            rate.
    """
    for pattern, least in ((f".*{LEFT_OVER}", age), (".owner.*", max(age, 60.0)), (".now.*", max(age, 60.0))):
        for file in folder.glob(pattern):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime >= least:
                    file.unlink()


class Rows:
    """A CSV file that grows by whole rows and can be cut back to what a checkpoint has seen.

    Args:
        path: of the file.
        columns: its header.
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = path
        self.columns = list(columns)

    def restart(self, keep: Callable[[dict[str, str]], bool]) -> None:
        """Rewrite the file with its header and the rows to keep; a row cut short by a kill is dropped."""
        kept: list[dict[str, str]] = []
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = list(csv.DictReader(file))
            kept = [row for row in rows if None not in row and None not in row.values() and keep(row)]
        lines = [self._line(self.columns), *(self._line(row[c] for c in self.columns) for row in kept)]
        write_atomic(self.path, "".join(lines))

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows at the end."""
        text = "".join(self._line(row[column] for column in self.columns) for row in rows)
        with open(self.path, "a") as file:
            file.write(text)

    @staticmethod
    def _line(values: Iterable[Any]) -> str:
        return ",".join("" if value is None else str(value) for value in values) + "\n"
