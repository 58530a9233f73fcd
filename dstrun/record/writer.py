"""Files that are whole or absent, however a process ends."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

LEFT_OVER = ".tmp"
"""How the name of a file ends that is not yet whole."""


def write_atomic(path: Path, content: bytes | str, *, keep: bool = False) -> None:
    """Replace a file: written beside it, flushed to disk, then renamed over it.

    Args:
        path: of the file.
        content: its bytes or its text.
        keep: whether the file that was there becomes ``previous(path)``.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{LEFT_OVER}")
    try:
        with suppress(FileNotFoundError):
            beside.unlink()  # of a killed process, or a link that leads elsewhere
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, previous(path))
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # half a file must not fill a disk that is full
        raise


def previous(path: Path) -> Path:
    """Say where the file before goes: ``checkpoint.previous.pt``."""
    return path.with_suffix(f".previous{path.suffix}")


def sweep_left_over(folder: Path) -> None:
    """Remove what killed processes were about to write."""
    for file in folder.glob(f".*{LEFT_OVER}"):
        file.unlink(missing_ok=True)


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
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(number, "a") as file:
            file.write(text)

    @staticmethod
    def _line(values: Iterable[Any]) -> str:
        return ",".join("" if value is None else str(value) for value in values) + "\n"
