"""One attempt at a run: a forked process that says what ``dstrun WORDS`` says, and to which something may happen.

Forked from a process that has imported PyTorch and started no thread, so that an attempt costs tenths of a second.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstrun.cli import flags
from dstrun.cli.main import main
from dstrun.config import composition
from dstrun.config.override import spelled
from dstrun.torture.points import Points, Strike

LIMIT_SECONDS = 40.0
"""An attempt that takes longer hangs."""
DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux: a victim does not outlive who forked it."""
BROKEN = re.compile(r"Traceback \(most recent call last\)|Fatal Python error|Segmentation fault|terminate called")
IGNORED = re.compile(
    r"^Exception ignored (?:in|on).*\n(?:Traceback.*\n)?(?:\s+.*\n)*(?:\w*(?:Error|Interrupt)\b.*\n)?", re.M
)


@dataclass(frozen=True)
class Injury:
    """What happens to an attempt.

    Attributes:
        strikes: at points of its writing.
        prepare: called in the process before anything else; a list of further strikes may be returned.
        streams: where its output goes: ``kept``, ``closed``, ``pipe`` (whose reader is gone), ``full``, ``leaves``.
        signal: sent from outside after so many ``seconds``.
        seconds: see ``signal``.
    """

    strikes: Sequence[Strike] = ()
    prepare: Callable[[], None] = lambda: None
    streams: str = "kept"
    signal: int | None = None
    seconds: float = 0.0


@dataclass
class Attempt:
    """How an attempt ended: exit code (negative: the signal that killed it), its words, and whether it had to be ended.

    ``done`` says whether the record was there at its end; ``struck`` whether what was to happen did; ``trace`` and
    ``modules`` which points it passed and what it had imported, where it came to its end.
    """

    code: int
    output: str
    seconds: float
    hung: bool = False
    struck: bool = False
    done: bool = False
    trace: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Return whether there is a traceback, other than of what Python could not raise."""
        return BROKEN.search(IGNORED.sub("", self.output)) is not None

    @property
    def ends_in_a_sentence(self) -> bool:
        """Return whether its last words are a sentence."""
        return any(" " in line.strip() for line in self.output.splitlines()[-3:])


class Victim:
    """An attempt under way.

    Args:
        words: the command line.
        folder: where it runs; its results are below.
        injury: what happens to it.
    """

    def __init__(self, words: Sequence[str], folder: Path, injury: Injury) -> None:
        self.folder, self.injury = folder, injury
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        (self.reads, writes), self.heard = zip(os.pipe(), os.pipe(), strict=True), [b"", b""]
        self.started, self.hung, self.sent, self.code = time.monotonic(), False, False, None
        self.limit = LIMIT_SECONDS
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                code = _suffer(words, folder, injury, *writes)
            except SystemExit as event:
                code = event.code if isinstance(event.code, int) else 1
            except BaseException as error:
                with suppress(BaseException):
                    sys.excepthook(type(error), error, error.__traceback__)
                code = 1
            finally:
                os._exit(code)
        for end in writes:
            os.close(end)
        for end in self.reads:
            os.set_blocking(end, False)

    def poll(self) -> Attempt | None:
        """Look once; sends the signal when it is due and ends what hangs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self.started
        for number, end in enumerate(self.reads):  # after the look, so that the last words are heard
            with suppress(BlockingIOError):
                while heard := os.read(end, 1 << 16):
                    self.heard[number] += heard
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
            return self._read(seconds)
        if self.injury.signal and not self.sent and seconds >= self.injury.seconds:
            self.sent = True
            os.kill(self.pid, self.injury.signal)
        if seconds > self.limit and not self.hung:
            self.hung = True
            os.kill(self.pid, signal.SIGKILL)
        return None

    def end(self) -> None:
        """Kill it if it is still there."""
        if self.code is None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        for end in self.reads:
            os.close(end)

    def _read(self, seconds: float) -> Attempt:
        assert self.code is not None
        output, report = self.heard
        struck, trace, modules = self.sent, [], []
        with suppress(EOFError, pickle.UnpicklingError):
            trace, modules = pickle.loads(report.lstrip(b"!"))
        done = any(self.folder.glob("results/*/*/record.json"))
        struck = struck or report.startswith(b"!")
        return Attempt(self.code, output.decode(errors="replace"), seconds, self.hung, struck, done, trace, modules)


def attempt(words: Sequence[str], folder: Path, *injuries: Injury, apart: Sequence[float] = ()) -> list[Attempt]:
    """Make one attempt for each injury, all at once or each so many seconds after the one before."""
    victims: list[Victim] = []
    ended: dict[int, Attempt] = {}
    try:
        for injury, pause in zip(injuries, [*apart, *[0.0] * len(injuries)], strict=False):
            time.sleep(pause)
            victims.append(Victim(words, folder, injury))
        while len(ended) < len(victims):
            for number, victim in enumerate(victims):
                if number not in ended and (found := victim.poll()):
                    ended[number] = found
            time.sleep(0.002)
    finally:
        for victim in victims:
            victim.end()
    return [ended[number] for number in range(len(victims))]


def _suffer(words: Sequence[str], folder: Path, injury: Injury, output: int, report: int) -> int:
    """Be the process that runs, with pipes to who forked it, as files have limits; returns its exit code."""
    os.setsid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    os.chdir(folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    logging.root.handlers.clear()
    leave = _streams(injury.streams, output)
    strikes = [_noted(strike, report, leave) for strike in injury.strikes]
    points = Points(folder / "results", strikes)
    injury.prepare()
    if injury.streams != "kept" or (not strikes and injury.signal is None):
        os.write(report, b"!")
    write, dumps = os.write, pickle.dumps
    points.install()
    try:
        return main(list(words))
    finally:
        with suppress(MemoryError):
            left = dumps((points.trace, sorted(sys.modules)))
            while left:
                left = left[write(report, left) :]
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()


def _noted(strike: Strike, report: int, leave: Callable[[], None]) -> Strike:
    def do(operation: str, path: str, write: Callable[..., Any] = os.write) -> None:
        write(report, b"!")
        leave()
        strike.do(operation, path)

    return Strike(strike.at, do, strike.when, strike.lasting, strike.operations)


def _streams(kind: str, output: int) -> Callable[[], None]:
    """Lead this process's output somewhere; returns what is called where a reader leaves later."""
    leave: Callable[[], None] = lambda: None  # noqa: E731
    if kind == "closed":
        os.close(1)
        os.close(2)
        sys.stdout = sys.stderr = None  # type: ignore[assignment]  # as Python has it then
        return leave
    if kind in ("pipe", "leaves"):
        reader, writer = os.pipe()
        leave = _once(lambda: os.close(reader))
        if kind == "pipe":
            leave()
    else:
        writer = os.open("/dev/full", os.O_WRONLY) if kind == "full" else output
    for number in (1, 2):
        os.dup2(writer, number)
    os.close(writer)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    return leave


def _once(do: Callable[[], None]) -> Callable[[], None]:
    """Make a function that does something at its first call only."""
    left = [do]
    return lambda: left.pop()() if left else None


def ready(words: Sequence[str]) -> None:
    """Compose a command line once, for every attempt that is forked from this process."""
    real = getattr(composition.compose, "real", composition.compose)
    known = getattr(composition.compose, "known", {})
    overrides = spelled(flags.of_run(words).overrides)
    known[tuple(overrides)] = real(overrides, [], "config")

    def compose(overrides: Sequence[str], *rest: Any, **options: Any) -> Any:
        found = known.get(tuple(overrides))
        return real(overrides, *rest, **options) if found is None else found

    compose.real, compose.known = real, known  # type: ignore[attr-defined]
    composition.compose = compose  # type: ignore[assignment]
