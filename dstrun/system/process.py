"""Which process it is: a number that is used again does not make another process the same."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def host() -> str:
    """Return the name of this machine."""
    return os.uname().nodename  # as ``platform.node`` and ``socket.gethostname`` do, which take milliseconds to import


@cache
def machine() -> str:
    """Return what tells this machine, since it was started, from others; they may share a name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return host()


def started(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; ``None`` where it has ended or cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = text[text.rindex(")") + 1 :].split()
        return None if state in "ZXx" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def gone(pid: object, start: object = None) -> bool:
    """Return whether a process of this machine has surely ended.

    Args:
        pid: of it.
        start: what ``started`` gave while it lived, where that is known.
    """
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    if isinstance(start, int) and os.path.exists("/proc/self/stat"):
        return started(pid) != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # somebody else's, and alive; or no number that this machine could know
    return False
