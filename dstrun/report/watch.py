"""A sweep on a terminal: the rows of ``status`` laid out to its width and height, and shown again as they change."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dstrun.report import status
from dstrun.report.format import cell
from dstrun.report.status import STYLES, TROUBLE, Sweep, common, count, totals
from dstrun.system import safe

Choose = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]

TITLES = {"epoch_seconds": "per epoch", "peak_bytes": "peak"}
COLUMNS = [replace(c, title=TITLES.get(c.key, c.title)) for c in status.COLUMNS if c.key != "message"]
LEAST = 5
"""Columns that every terminal shows: run, state, epoch, top1, ETA."""
GAP = "  "
NAME = 8
"""Characters of a name that are left on the narrowest terminal."""

LEAVE = ("q", "Q")
KEY_SECONDS = 0.2
"""How soon a key, or another size of the terminal, is noticed."""


def watch(sweep: Sweep, choose: Choose, interval: float) -> list[dict[str, Any]]:
    """Show a sweep until nothing of it is awaited any more, or until ``q``; where piped, a block of text a change.

    Args:
        sweep: what to read.
        choose: picks and orders the rows to show.
        interval: seconds from one look at the files to the next.

    Returns:
        All rows as they were last.
    """
    on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return (_follow if on_terminal else _tell)(sweep, choose, interval)


def _follow(sweep: Sweep, choose: Choose, interval: float) -> list[dict[str, Any]]:
    console, rows = Console(), sweep.rows(time.time())
    hint = "; q quits" if sys.stdin.isatty() else ""
    with _terminable(), _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        key = ""
        while key not in LEAVE and any(row["awaited"] for row in rows):
            shown, size, due = choose(rows), None, time.monotonic() + interval
            while key not in LEAVE and time.monotonic() < due:
                if console.size != size:
                    size = console.size
                    live.update(Group(*frame(shown, totals(rows) + hint, size.width, size.height)), refresh=True)
                key = pressed(min(KEY_SECONDS, max(due - time.monotonic(), 0)))
            if key not in LEAVE:
                rows = sweep.rows(time.time())
    if rows:
        # What was seen last stays on the terminal, above the prompt.
        show(choose(rows), rows, console.height - 1)
    return rows


def show(shown: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], height: int | None = None) -> None:
    """Print some of all rows to the terminal, as wide as it is."""
    console = Console(highlight=False)
    console.print(*frame(shown, totals(rows), console.width, height), sep="\n")


def _tell(sweep: Sweep, choose: Choose, interval: float) -> list[dict[str, Any]]:
    before = None
    while True:
        rows = sweep.rows(time.time())
        shown = choose(rows)
        said = [{key: value for key, value in row.items() if key != "heartbeat"} for row in shown]
        if rows and said != before:
            lines = frame(shown, totals(rows), *shutil.get_terminal_size((160, 24)))
            sys.stdout.write("\n".join(line.plain.rstrip() for line in lines) + "\n\n")
            sys.stdout.flush()
        if not any(row["awaited"] for row in rows):
            return rows
        before = said
        if _reader_left(interval):
            return rows


def _reader_left(seconds: float) -> bool:
    """Wait; return at once where nobody reads what is piped any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):  # no descriptor behind it
        time.sleep(seconds)
        return False
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(1000 * seconds))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read single keys without showing them; gives what waits up to some seconds for one, ``""`` if there was none."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> str:
    if not select.select([0], [], [], seconds)[0]:
        return ""
    try:
        return os.read(0, 1).decode(errors="replace") or LEAVE[0]  # the terminal has closed
    except OSError:
        return LEAVE[0]


@contextmanager
def _terminable() -> Iterator[None]:
    """End by an exception where a signal would end the process and leave the terminal as it is."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def frame(rows: Sequence[dict[str, Any]], head: str, width: int, height: int | None = None) -> list[Text]:
    """Lay rows out below ``head``, in at most ``height`` lines (None: as many as it takes) of ``width`` characters.

    Below a run in trouble stands its message. Of what does not fit, columns are left out from the right, names lose
    their beginning, first that which all have, and runs are counted in the last line.
    """
    beginning = common([row["run"] for row in rows]) if _total(_widths(_table(rows))) > width else ""
    said = [textwrap.wrap(text, width, break_on_hyphens=False) for text in (head, f"{head}; names without {beginning}")]
    needed = sum(2 if _said(row) else 1 for row in rows) + 1
    free = len(said[1]) == len(said[0]) or height is None or len(said[1]) + needed <= height
    lines = [Text(line) for line in said[1 if beginning and free else 0]]
    shown, hidden = fold(rows, None if height is None else height - len(lines) - 1)
    table = _table(shown)
    widths = _fit(table, beginning, width)
    title = _line(table[0], widths)
    title.stylize("bold")
    lines.append(title)
    for row, cells in zip(shown, table[1:], strict=True):
        style = STYLES.get(row["state"], "")
        lines.append(_line(cells, widths, style))
        if message := _said(row):
            lines.append(Text(f"  {message}", style=style))
    if hidden:
        last = f"... and {count(hidden).replace(' ', ' more ', 1)}"
        lines.append(Text(last if len(last) <= width else f"... and {len(hidden)} more", style="dim"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the heading and the rows as text."""
    return [
        [column.heading for column in COLUMNS],
        *([safe.line(cell(row, column)) for column in COLUMNS] for row in rows),
    ]


def fold(rows: Sequence[dict[str, Any]], lines: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split rows into those that fit into some lines, in their order, and those that are only counted, in a line more.

    Running ones are kept first, but up to half of the room is for those in trouble; the rest goes to the others.
    """
    size = [2 if _said(row) else 1 for row in rows]
    if lines is None or sum(size) <= lines:
        return list(rows), []
    kept: set[int] = set()

    def keep(wanted: Callable[[dict[str, Any]], bool], room: int) -> None:
        for i, row in enumerate(rows):
            if wanted(row) and i not in kept:
                room -= size[i]
                if room < 0:
                    return
                kept.add(i)

    def left() -> int:
        return lines - 1 - sum(size[i] for i in kept)

    running = sum(row["state"] == "running" for row in rows)
    keep(lambda row: row["state"] in TROUBLE, max(left() // 2, left() - running))
    keep(lambda row: row["state"] == "running", left())
    keep(lambda row: True, left())
    return [row for i, row in enumerate(rows) if i in kept], [row for i, row in enumerate(rows) if i not in kept]


def _said(row: dict[str, Any]) -> str:
    return safe.line(str(row["message"])) if row["state"] in TROUBLE and row["message"] else ""


def _fit(table: list[list[str]], beginning: str, width: int) -> list[int]:
    """Return the widths of the columns that fit, and shorten the names where that is not enough."""
    for line in table[1:]:
        line[0] = line[0].removeprefix(beginning)
    widths = _widths(table)
    while len(widths) > LEAST and _total(widths) > width:
        widths.pop()
    room = max(width - _total(widths) + widths[0], NAME)
    for line in table[1:]:
        if len(line[0]) > room:
            line[0] = f"…{line[0][1 - room :]}"
    return [min(widths[0], room), *widths[1:]]


def _widths(table: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _total(widths: list[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _line(cells: list[str], widths: list[int], style: str = "") -> Text:
    """Put cells side by side, the state in a style."""
    run, state, *others = (
        text.ljust(width) if column.kind == "text" else text.rjust(width)
        for text, column, width in zip(cells, COLUMNS, widths, strict=False)
    )
    return Text.assemble(run, GAP, (state, style), GAP, GAP.join(others))
