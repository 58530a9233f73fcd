"""Ctrl-C where nothing is to be saved: one ends the command, another ends it at once, and none leaves a traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

LEFT = 130
"""Exit code of what left at once."""

_asked = False


def leave_quietly() -> None:
    """Handle Ctrl-C from here to the end of this process, shutdown included, unless another handler is set."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored (``nohup ... &``)
        signal.signal(signal.SIGINT, _interrupted)
    before = sys.unraisablehook

    def unraisable(found: Any, /) -> None:
        """Leave where Python would drop the Ctrl-C: in a callback, as between two imports."""
        if found.exc_type is KeyboardInterrupt:
            os._exit(LEFT)
        before(found)

    sys.unraisablehook = unraisable


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    global _asked
    if _asked:
        os._exit(LEFT)
    _asked = True
    raise KeyboardInterrupt
