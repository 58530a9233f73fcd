"""Files that are whole or absent, however a process ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dstrun.system.process import host
from dstrun.system.trouble import FULL

LEFT_OVER = ".tmp"
"""How the name of a file ends that is not yet whole."""


@contextmanager
def whole(path: Path, *, keep: bool = False) -> Iterator[IO[bytes]]:
    """Replace a file: what is written goes beside it, is flushed to disk, and is renamed over it once all is there.

    Args:
        path: of the file.
        keep: whether the file that was there becomes ``previous(path)``.
    """
    beside = path.with_name(f".{path.name}.{host()}.{os.getpid()}{LEFT_OVER}")
    try:
        with suppress(FileNotFoundError):
            beside.unlink()  # of a killed process, or a link that leads elsewhere
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, previous(path))
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # half a file must not fill a disk that is full
        raise


def write_atomic(path: Path, content: bytes | str, *, keep: bool = False, squeeze: bool = False) -> None:
    """Replace a file by a content.

    Args:
        path: of the file.
        content: its bytes or its text.
        keep: whether the file that was there becomes ``previous(path)``.
        squeeze: whether, where the disk has no room for a second file, the first is overwritten: for a few bytes that
            have to be said just then.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with whole(path, keep=keep) as file:
            file.write(data)
    except OSError as error:
        if not (squeeze and error.errno in FULL and path.exists()):
            raise
        _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Write over a file within the room it has."""
    with open(path, "r+b", buffering=0) as file:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.truncate()


def previous(path: Path) -> Path:
    """Return where the file before goes: ``checkpoint.previous.pt``."""
    return path.with_suffix(f".previous{path.suffix}")
