"""Ctrl-C and SIGTERM ask a run to stop at the end of its step; a second one ends it at once."""

from __future__ import annotations

import signal
from types import FrameType


class Stop:
    """Context in which SIGINT and SIGTERM set ``requested`` (the signal's name) instead of ending the process.

    Outside the main thread, where Python does not deliver signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
