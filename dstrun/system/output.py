"""Output of a training process: losing it affects nothing else.

Whoever reads the output may leave: a pipe closes, a terminal is shut, a disk is full. Python then raises an error at
any line that prints, in the progress bar's thread and in ``logging`` as well as in ``print``. Here it ends at the
descriptor, below all of them.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from dstrun.system.trouble import FULL


class Lasting(io.FileIO):
    """A descriptor to which writing never fails; what nobody takes is dropped.

    A full disk may have room later. Any other failure is for good: the descriptor then leads to the null device, for
    native code and children too.
    """

    def write(self, data, /) -> int:  # type: ignore[override]
        """Write, or drop."""
        try:
            return super().write(data) or len(data)
        except OSError as error:
            if error.errno not in FULL:
                _to_null(self.fileno())
            return len(data)


def reopen() -> None:
    """Lead standard streams that were closed (``2>&-``) to the null device: the next file would get their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _wrapped(number, None))


def outlast() -> None:
    """Make this process's standard streams outlast whoever reads them."""
    reopen()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        try:
            mine = stream.fileno() == number
        except (OSError, ValueError):  # a test's, or a notebook's
            continue
        if mine and not isinstance(getattr(getattr(stream, "buffer", None), "raw", None), Lasting):
            setattr(sys, name, _wrapped(number, stream))


def _wrapped(number: int, before: io.TextIOWrapper | None) -> io.TextIOWrapper:
    if before is not None:
        try:
            before.flush()
        except (OSError, ValueError):
            _to_null(number)  # what it still holds goes there when it is collected
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(number, "w", closefd=False)),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before else "backslashreplace",
        line_buffering=number == 2 or (before is not None and (before.line_buffering or before.write_through)),
    )


def _to_null(number: int) -> None:
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        if null == number:
            os.set_inheritable(null, True)
        else:
            os.dup2(null, number)
            os.close(null)
