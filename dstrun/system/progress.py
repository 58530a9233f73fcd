"""Progress of a run on the terminal: one line per epoch, with a bar on a terminal; on stderr."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

from dstrun.system.safe import readable, visible, without_secrets
from dstrun.system.wording import counted, in_bytes, in_seconds

MOMENT_SECONDS = 2.0
"""What takes longer is said where it cannot be shown and taken away again."""
QUIET_SECONDS = 30.0
"""How long a log stays without a line within an epoch."""
TIMED_SECONDS, TIMED_STEPS = 3.0, 5
"""After so much training the hours to go are estimated."""
HEAD_LINES = 30
"""After so many epochs the names of the columns are printed again."""

CLEARED = "\x1b[2K\r"
"""Clears a line of the terminal."""

_muted = False
_said: set[str] = set()
_doing: list[str] = []
"""What takes a moment now, the innermost last."""


def say(line: str) -> None:
    """Print a line of the log, which never mixes with results on stdout; it is wrapped on a terminal."""
    if not _muted:
        print(readable(visible(without_secrets(line)), sys.stderr), file=sys.stderr, flush=True)


def say_once(line: str) -> None:
    """Print a line of the log, unless this process has said it before: many read the same file."""
    if line not in _said:
        _said.add(line)
        say(line)


@contextmanager
def muted() -> Iterator[None]:
    """Print nothing and log errors only, where another process says the same."""
    global _muted
    log = logging.getLogger("dstrun")
    before = _muted, log.level
    _muted = True
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _muted = before[0]
        log.setLevel(before[1])


def human(number: float) -> str:
    """Shorten a count: ``4.46 G``."""
    power = min(int(math.log10(abs(number)) // 3), 6) if number else 0
    return f"{number / 1000**power:.3g} {['', 'K', 'M', 'G', 'T', 'P', 'E'][power]}".strip()


def draws() -> bool:
    """Return whether stderr is a terminal that can draw a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Print what takes a moment: on a terminal at once and until it is done, in a log once it takes longer.

    Args:
        what: is done, as ``loading PyTorch``.
    """
    in_turns = threading.current_thread() is not threading.main_thread()  # such runs have logs of their own
    if _muted or in_turns or any(what in outer for outer in _doing):
        yield
        return
    _doing.append(what)
    try:
        with _noticed(f"{what} ...") if draws() else _said_late(f"{what} ..."):
            yield
    finally:
        _doing.pop()


@contextmanager
def _said_late(text: str) -> Iterator[None]:
    """Print a line of the log once it takes longer."""
    late = threading.Timer(MOMENT_SECONDS, say, [text])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()  # so that no line comes after what follows


@contextmanager
def _noticed(text: str) -> Iterator[None]:
    """Show a line on the terminal."""
    notice: Any = _Notice(sys.stderr, text)
    try:
        with redirect_stderr(notice):
            yield
    finally:
        notice.end()


class _Notice:
    """Stands in for stderr while a line is shown there: what is written goes above the line.

    Args:
        stream: stderr, which may be another notice that comes back at the end.
        text: of the line.
    """

    def __init__(self, stream: Any, text: str) -> None:
        self.outer = stream if isinstance(stream, _Notice) else None
        self.stream, self.text = self.outer.stream if self.outer else stream, text
        self._show(self.text)

    def __getattr__(self, name: str) -> Any:
        """Return what stderr has."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write above the line."""
        self.stream.write(f"{CLEARED}{text}" if self._whole else text)
        self._whole = text.endswith("\n")
        if self._whole:
            self._show(self.text)
        return len(text)

    def end(self) -> None:
        """Remove the line."""
        self._show(self.outer.text if self.outer else "")

    def _show(self, text: str) -> None:
        self._whole = True
        """Whether nothing is written of the line that would be written on."""
        with suppress(OSError, ValueError):
            self.stream.write(f"{CLEARED}{text}\r" if text else CLEARED)
            self.stream.flush()


class Progress:
    """Follows one run.

    Args:
        total_steps: of the run.
        steps_per_epoch: to tell the epoch from the step.
        batch_size: samples of a step, from which images a second follow.
        clock: seconds.
    """

    def __init__(
        self, total_steps: int, steps_per_epoch: int, batch_size: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total_steps, self.steps_per_epoch, self.batch_size = total_steps, steps_per_epoch, batch_size
        self.epochs = total_steps // steps_per_epoch
        self.bar: Any = None
        self._clock = clock
        self._rows, self._decimals = 0, 1
        self._timed: tuple[float, int] | None = None
        """When a step ended after which steps are timed, and which."""
        self._seconds = 0.0
        """Of a step, as timed last."""
        self._estimated = False
        self._spoken = clock()
        if draws():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = ("{task.fields[epoch]}", BarColumn(20), TextColumn("{task.fields[note]}", markup=False))
            self.bar = RichProgress(*columns, console=Console(stderr=True, highlight=False), transient=True)
            self.task = self.bar.add_task("", total=steps_per_epoch, epoch=f"epoch 1/{self.epochs}", note="first step")
            self.bar.start()

    def step(self, step: int) -> None:
        """Move on to a step that is done, counted from 1."""
        now = self._clock()
        if step < 2:  # the first steps are measured, and what they need is compiled
            self._show(step, "")
            return
        if self._timed is None or step <= self._timed[1]:
            self._timed = now, step
        since, first = self._timed
        if step - first >= TIMED_STEPS or (step > first and not self._seconds):
            self._seconds = (now - since) / (step - first)
        if not self._estimated and not self._rows and now - since >= TIMED_SECONDS and step - first >= TIMED_STEPS:
            self._estimate(step, self._seconds)
        here = step % self.steps_per_epoch
        note = self._pace(self._seconds, step)
        self._show(step, note)
        if self.bar is None and here and now - self._spoken >= QUIET_SECONDS:
            self._spoken = now
            epoch = f"epoch {step // self.steps_per_epoch + 1}/{self.epochs}"
            say(f"  {epoch}: step {here:,} of {self.steps_per_epoch:,}{f', {note}' if note else ''}")

    def _estimate(self, step: int, seconds: float) -> None:
        """Print how long the run will take, unless it is soon over."""
        self._estimated = True
        left = seconds * (self.total_steps - step)
        if left < 60:
            return
        rate = f", {self.batch_size / seconds:,.0f} images/s" if self.batch_size and seconds else ""
        what = f"{counted(self.epochs, 'epoch')} of {counted(self.steps_per_epoch, 'step')}"
        say(f"  about {in_seconds(left)} to go: {what}, {1000 * seconds:,.0f} ms a step{rate}")

    def _pace(self, seconds: float, step: int) -> str:
        """Format how fast it goes, and how long it will; nothing as long as that is not known."""
        if not seconds:
            return ""
        rate = f"{self.batch_size / seconds:,.0f} images/s, " if self.batch_size else ""
        return f"{rate}ETA {in_seconds(seconds * (self.total_steps - step))}"

    def _show(self, step: int, note: str) -> None:
        if self.bar is None:
            return
        epoch, here = min(step // self.steps_per_epoch + 1, self.epochs), step % self.steps_per_epoch
        if step and not here:
            epoch, here = step // self.steps_per_epoch, self.steps_per_epoch  # whose images are evaluated now
            note = "evaluating"
        count = f"{here:,}/{self.steps_per_epoch:,}"
        shown = f"step {count}{f'  {note}' if note else ''}"
        self.bar.update(self.task, completed=here, epoch=f"epoch {epoch}/{self.epochs}", note=shown)

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the results of an epoch in aligned columns."""
        count, seconds = f"{row['epoch']}/{self.epochs}", row["seconds"]
        if not self._rows:
            self._decimals = 1 if seconds >= 10 else 2
        samples, left = self.batch_size * self.steps_per_epoch, seconds * (self.epochs - row["epoch"])
        peak, split = row.get("peak_bytes"), {"validation": "val"}.get(row["split"], row["split"])
        cells = {
            "epoch": count.rjust(2 * len(str(self.epochs)) + 1),
            "loss": f"{row['train_loss']:.4f}",
            f"{split} loss": f"{row['loss']:.4f}",
            "top-1": f"{row['top1']:.2f} %",
            "lr": f"{row['lr']:.4f}" if row["lr"] >= 0.001 or not row["lr"] else f"{row['lr']:.1e}",
            "s/epoch": f"{seconds:,.{self._decimals}f}",
            "images/s": f"{samples / seconds:,.0f}" if samples and seconds else "-",
            "ETA": in_seconds(left) if left else "-",
            "peak": in_bytes(peak) if peak else "-",
        }
        widths = [max(width, len(name)) for width, name in zip((5, 6, 6, 8, 7, 7, 8, 7, 7), cells, strict=True)]
        widths[0] = max(widths[0], len(cells["epoch"]))
        gap = "  " if self.bar is None or sum(widths) + 2 * len(widths) - 2 <= self.bar.console.width else " "
        if self._rows % HEAD_LINES == 0:
            say(gap.join(name.rjust(width) for name, width in zip(cells, widths, strict=True)))
        say(gap.join(text.rjust(width) for text, width in zip(cells.values(), widths, strict=True)))
        self._rows += 1
        self._timed = None  # of the next epoch, so that no evaluation is among its steps
        self._spoken = self._clock()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self.bar is not None:
            self.bar.stop()
