"""Signals that ask a run to stop after its step: Ctrl-C, a closing terminal, a cluster that preempts the job.

Python runs a handler between two bytecodes, so a signal is seen when the step (or the save) under way is over: a
cluster's notice (SLURM's ``--signal``) has to be longer than one step and one save.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

TIMERS = tuple(
    signal.Signals[name]
    for name in ("SIGXCPU", "SIGALRM", "SIGVTALRM", "SIGPOLL", "SIGPWR", "SIGSTKFLT")
    if name in signal.Signals.__members__  # which differ between systems
)
"""What a limit (``ulimit -St``), a timer or a power supply sends, and would end the process."""
ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *TIMERS)
"""SLURM sends SIGTERM where it cancels or preempts, SIGUSR1 or SIGUSR2 where it is told to warn before."""

HINT = b"\nstops after this step and saves; Ctrl-C again leaves at once\n"


class Stop:
    """Context in which ``ASKS`` set ``requested`` (the signal's name) instead of ending the process.

    A second Ctrl-C ends it at once, which costs no checkpoint, as a file is replaced whole or not at all. Any other
    repeated signal changes nothing, so that saving is left in peace. SIGHUP stays ignored where it is (``nohup``), and
    who handles one of ``TIMERS`` keeps it. In another thread than the main one, which alone Python tells of signals, it
    is asked when the main thread's is.
    """

    def __init__(self) -> None:
        self._asked: list[str] = []
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> str | None:
        """Name the signal that asked first; ``None`` before any has."""
        return self._asked[0] if self._asked else None

    def __enter__(self) -> Stop:
        for number in ASKS:
            handler = signal.getsignal(number)
            if (number == signal.SIGHUP and handler == signal.SIG_IGN) or (number in TIMERS and handler):
                continue
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:
                self._asked = _active[0]._asked if _active else self._asked
                break
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.remove(self)
        if self._before and (number := next((n for n in TIMERS if n.name == self.requested), None)):
            self._before[number] = signal.SIG_IGN  # it may come again, SIGXCPU every second, before the end is told
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def pass_on(self) -> None:
        """Send SIGUSR1 or SIGUSR2 again, if that was asked with, to the handler that was there before.

        A launcher's handler (submitit's requeues the job) thus runs once the run is saved and lets go; it may not
        return. Without a handler in Python nothing happens: the default would be to die.
        """
        number = next((n for n in (signal.SIGUSR1, signal.SIGUSR2) if n.name == self.requested), None)
        if number is not None and callable(self._before.get(number)):
            os.kill(os.getpid(), number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is None:
            self._asked.append(signal.Signals(number).name)
            if number == signal.SIGINT and os.isatty(2):
                with suppress(OSError):  # the terminal may close this very moment
                    os.write(2, HINT)  # not print, which a handler may interrupt
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


_active: list[Stop] = []


def _let_go() -> None:
    """Restore the default signals in a forked child: it must neither outlive its run nor act as if it were the run."""
    for number in {number for stop in _active for number in stop._before}:
        warns = number in (signal.SIGUSR1, signal.SIGUSR2)
        signal.signal(number, signal.SIG_IGN if warns else signal.SIG_DFL)


os.register_at_fork(after_in_child=_let_go)
