"""Files of a run: growing rows, texts with checksums, and leftovers of killed processes."""

from __future__ import annotations

import csv
import logging
import os
import re
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any
from zlib import crc32

from dstrun.system.whole import LEFT_OVER, write_atomic

log = logging.getLogger("dstrun")

KEPT_BYTES = 8 << 20
"""Of rows, compressed: what a checkpoint takes besides the weights."""

TRYING_SECONDS = 60.0
"""How long a process may take to try for a run."""


def sweep_left_over(folder: Path, locked: bool = False) -> None:
    """Remove what killed processes were about to write, and what they looked at the time with.

    Args:
        folder: of a run, held by this process.
        locked: whether the kernel keeps others from taking it over; else notes that they may be taking over are left
            for a minute.
    """
    trying = 0.0 if locked else TRYING_SECONDS
    for pattern, least in ((f".*{LEFT_OVER}", 0.0), (".owner.*", trying), (".now.*", TRYING_SECONDS)):
        for file in folder.glob(pattern):
            with suppress(OSError):
                if abs(time.time() - file.stat().st_mtime) >= least:  # clocks may differ by as much
                    file.unlink()


def set_aside(path: Path, why: str) -> None:
    """Keep a damaged file under another name, ``record.damaged.json``, and say so."""
    aside = path.with_suffix(f".damaged{path.suffix}")
    os.replace(path, aside)
    log.warning("%s; the file is kept as %s", why, aside.name)


SIGNATURE = re.compile(rb"# checksum ([0-9a-f]{8})\n\Z")


def signed(text: str) -> str:
    """Return a YAML text with a comment at its end that has its checksum."""
    return f"{text}# checksum {crc32(text.encode()):08x}\n"


def is_signed(data: bytes) -> bool:
    """Return whether a text is what was written; an older one has no checksum."""
    found = SIGNATURE.search(data)
    return found is None or crc32(data[: found.start()]) == int(found[1], 16)


class Rows:
    """A CSV file that grows by whole rows, of which a checkpoint has all, or a checksum where they are many.

    Args:
        path: of the file.
        columns: its header.
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self._forget()

    def _forget(self) -> None:
        self._counted = (0, 0, 0)
        self._packer, self._packed = zlib.compressobj(1), bytearray()

    def _take(self, data: bytes) -> None:
        written, rows, crc = self._counted
        self._counted = (written + len(data), rows + data.count(b"\n"), crc32(data, crc))  # at once: a thread reads it
        if len(self._packed) <= KEPT_BYTES:
            self._packed += self._packer.compress(data)

    def keep(self) -> dict[str, Any]:
        """Return what ``restore`` needs: all rows, compressed, unless they are more than ``KEPT_BYTES``."""
        few = len(self._packed) <= KEPT_BYTES
        text = bytes(self._packed) + self._packer.copy().flush() if few else None
        written, _, crc = self._counted
        return {"bytes": written, "crc32": crc, "text": text}

    def sums(self) -> dict[str, Any]:
        """Return how many rows and bytes this process has put there, and their checksum."""
        written, rows, crc = self._counted
        return {"rows": rows - 1, "bytes": written, "crc32": f"{crc:08x}"}

    @property
    def begun(self) -> bool:
        """Return whether this process has made the file, or made it again."""
        return self._counted[0] > 0

    def matches(self, sums: dict[str, Any]) -> bool:
        """Return whether the file is the one of which ``sums`` told."""
        try:
            return f"{crc32(self.path.read_bytes()):08x}" == sums.get("crc32")
        except OSError:
            return False

    def holds(self, kept: dict[str, Any]) -> bool:
        """Return whether what was kept can be restored, from itself or from the file."""
        return kept["text"] is not None or self._begins(kept) is not None

    def _begins(self, kept: dict[str, Any]) -> bytes | None:
        try:
            with open(self.path, "rb") as file:
                data = file.read(kept["bytes"])
        except OSError:
            return None
        return data if len(data) == kept["bytes"] and crc32(data) == kept["crc32"] else None

    def restore(self, kept: dict[str, Any]) -> None:
        """Make the file what it was when this was kept, whatever has become of it."""
        data = self._begins(kept)
        if data is None:
            log.warning("%s has lost rows or was changed: it is made again from the checkpoint", self.path)
            data = zlib.decompress(kept["text"])
        self._write(data)

    def restart(self, until: int) -> None:
        """Rewrite the file with its header and the whole rows up to a step, as far as they can be read."""
        lines = [self._line(self.columns)]
        if until and self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            found = csv.reader(line.replace("\0", "\ufffd") for line in text[: text.rfind("\n") + 1].splitlines(True))
            at, width = self.columns.index("step"), len(self.columns)
            lines += [self._line(row) for row in found if len(row) == width and _step(row[at]) <= until]
        self._write("".join(lines).encode())

    def _write(self, data: bytes) -> None:
        write_atomic(self.path, data)
        self._forget()
        self._take(data)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows at the end."""
        data = "".join(self._line(row[column] for column in self.columns) for row in rows).encode()
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            with open(number, "ab") as file:
                file.write(data)
        except OSError as error:
            error.filename = error.filename or str(self.path)  # which a write by number does not know
            raise
        self._take(data)

    @staticmethod
    def _line(values: Iterable[Any]) -> str:
        return ",".join("" if value is None else str(value) for value in values) + "\n"


def _step(word: str) -> float:
    """Return the step of a row; beyond all where it is none."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 20 else inf
