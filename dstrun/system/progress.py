"""What a person sees of a run while it trains: a bar on a terminal, else one plain line an epoch; on stderr."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dstrun.system.safe import visible, without_secrets

_muted = False
_said: set[str] = set()


def say(line: str) -> None:
    """Print a line of the log, which never mixes with results on stdout."""
    if not _muted:
        print(visible(without_secrets(line)), file=sys.stderr, flush=True)


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


class Progress:
    """Follows one run.

    Args:
        total_steps: of the run.
        steps_per_epoch: to tell the epoch from the step.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int) -> None:
        self.epochs = total_steps // steps_per_epoch
        self.steps_per_epoch = steps_per_epoch
        self.bar: Any = None
        if sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):  # which cannot draw a bar
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = ("epoch {task.fields[epoch]}", BarColumn(), MofNCompleteColumn())
            more = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            self.bar = RichProgress(*columns, *more, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("", total=total_steps, epoch=f"1/{self.epochs}", note="")
            self.bar.start()

    def step(self, step: int) -> None:
        """Move on to a step that is done, counted from 1."""
        if self.bar is not None:
            epoch = min(step // self.steps_per_epoch + 1, self.epochs)
            self.bar.update(self.task, completed=step, epoch=f"{epoch}/{self.epochs}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the results of an epoch."""
        line = (
            f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  {row['split']} loss {row['loss']:.4f}  "
            f"top-1 {row['top1']:.2f} %  lr {row['lr']:g}  {row['seconds']:.1f} s"
        )
        if self.bar is not None:
            self.bar.update(self.task, note=f"top-1 {row['top1']:.2f} %")
        else:
            say(line)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.bar is not None:
            self.bar.stop()
