"""Files that are whole or absent, however a process ends."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file: written beside it, flushed to disk, then renamed over it."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


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
