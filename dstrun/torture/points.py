"""Every moment at which a run touches its folder, counted; something can be made to happen at each.

``open``, the ``os`` functions that change files, and each write that reaches the system are wrapped in the process that
is to suffer. What one process does is the same each time, and so point 17 is the same moment each time.
"""

from __future__ import annotations

import builtins
import io
import os
import platform
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CREATES = frozenset({"open", "write", "mkdir", "link"})
"""Operations that need room."""

_OWN = re.compile(rf"\.{re.escape(platform.node())}\.\d+\.|\.[0-9a-f]{{32}}\b\.?")
"""What names of files have of the process that writes them."""

OPERATIONS = ("rename", "replace", "unlink", "remove", "link", "mkdir", "utime", "truncate", "rmdir")


@dataclass(frozen=True)
class Strike:
    """Something to do at a point.

    Attributes:
        at: number of the point, from 1.
        do: what; it gets the operation and the path.
        when: ``before`` the operation, ``after`` it, or in the ``middle``: half of the bytes are written.
        lasting: whether it happens at every later point as well.
        operations: at which it happens; all if empty.
    """

    at: int
    do: Callable[[str, str], None]
    when: str = "before"
    lasting: bool = False
    operations: frozenset[str] = frozenset()

    def hits(self, number: int, operation: str) -> bool:
        """Return whether it happens at a point."""
        return (number == self.at or (self.lasting and number > self.at)) and (
            not self.operations or operation in self.operations
        )


class Points:
    """Counts the points of this process below a folder, and strikes there; it is installed for good.

    Args:
        root: only files below it count.
        strikes: what to do at which point.
    """

    def __init__(self, root: Path, strikes: list[Strike]) -> None:
        self.root, self.strikes = f"{root}{os.sep}", strikes
        self.trace: list[str] = []
        self._main = threading.get_ident()
        self._open, self._close = builtins.open, os.close
        self._fds: set[int] = set()

    def install(self) -> None:
        """Wrap what changes files."""
        builtins.open = io.open = self.open  # type: ignore[assignment]
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.open = self._wrapped("open", os.open, opens=True)  # type: ignore[assignment]
        os.close = self._forget  # type: ignore[assignment]
        for name in ("write", "fsync", "fdatasync"):
            setattr(os, name, self._by_descriptor("write" if name == "write" else "fsync", getattr(os, name)))

    def at(self, operation: str, path: str, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Pass a point: strike before, in the middle or after."""
        counts = threading.get_ident() == self._main
        if counts:
            self.trace.append(f"{operation} {_OWN.sub('.*.', os.path.basename(path))}")
        number = len(self.trace)
        due = [s for s in self.strikes if s.hits(number, operation) and (counts or s.lasting)]
        for strike in due:
            if strike.when == "middle" and half is not None:
                half()
            if strike.when != "after":
                strike.do(operation, path)
        result = do()
        for strike in due:
            if strike.when == "after":
                strike.do(operation, path)
        return result

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        """Open a file as ``open`` does; one of the folder that is written passes points."""
        named = {**dict(zip(("encoding", "errors", "newline", "closefd", "opener"), rest, strict=False)), **options}
        path = self._inside(file)
        if path is None or not set(mode) & set("wax+") or named.get("opener"):
            return self._open(file, mode, buffering, **named)
        raw = self.at("open", path, lambda: _Raw(self, path, mode.replace("t", "").replace("b", "")))
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text: dict[str, Any] = {key: named.get(key) for key in ("encoding", "errors", "newline")}
        return io.TextIOWrapper(buffered, **text, line_buffering=buffering == 1)

    def _inside(self, file: Any) -> str | None:
        if isinstance(file, int):
            return None
        path = os.path.abspath(os.fsdecode(file))
        return path if path.startswith(self.root) else None

    def _wrapped(self, name: str, real: Callable[..., Any], opens: bool = False) -> Callable[..., Any]:
        operation = {"replace": "rename", "remove": "unlink"}.get(name, name)

        def wrapper(path: Any, *rest: Any, **options: Any) -> Any:
            inside = self._inside(path) if not options.get("dir_fd") else None
            flags = rest[0] if opens and rest else options.get("flags", 0)
            if inside is None or (opens and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return real(path, *rest, **options)
            shown = self._inside(rest[0]) if operation in ("rename", "link") and rest else None
            result = self.at(operation, shown or inside, lambda: real(path, *rest, **options))
            if opens:
                self._fds.add(result)
            return result

        return wrapper

    def _by_descriptor(self, operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(fd: Any, *data: Any) -> Any:
            number = fd if isinstance(fd, int) else fd.fileno()
            if number not in self._fds:
                return real(fd, *data)
            half = (lambda: real(fd, data[0][: len(data[0]) // 2])) if data else None
            return self.at(operation, _path_of(number), lambda: real(fd, *data), half)

        return wrapper

    def _forget(self, fd: int) -> None:
        self._fds.discard(fd)
        self._close(fd)


class _Raw(io.FileIO):
    """A file whose writes are points."""

    def __init__(self, points: Points, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._points = points
        points._fds.add(self.fileno())

    def write(self, data: Any, /) -> int:
        real = super().write
        return self._points.at(
            "write", os.fsdecode(self.name), lambda: real(data), lambda: real(data[: len(data) // 2])
        )

    def close(self) -> None:
        if not self.closed and hasattr(self, "_points"):
            self._points._fds.discard(self.fileno())
        super().close()


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "a file"
