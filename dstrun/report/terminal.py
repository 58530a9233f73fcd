"""Rows as a table for a person at a terminal: within its width, cut nowhere but between words and between columns."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dstrun.report.format import Column, Mean, cell, render, settled, spans
from dstrun.system import safe
from dstrun.system.safe import put
from dstrun.system.wording import counted, wrapped

WORDY = 28
"""A word of text that is longer, as a path, may be broken: a column need not be wider for it."""
LEAST = 2
"""Columns that are shown however narrow the terminal is."""
GAP = 2
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Block:
    """A table with its title, part of what a verb prints besides text.

    Attributes:
        rows: values by column key.
        columns: what is shown of them, in this order.
        title: above it.
        styles: at a terminal, of cells by column key and text, as rich writes styles.
    """

    rows: Sequence[dict[str, Any]]
    columns: Sequence[Column]
    title: str = ""
    styles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def on_terminal() -> bool:
    """Return whether what is printed is read at a terminal."""
    return sys.stdout.isatty()


def width() -> int:
    """Return how many columns the terminal has."""
    from rich.console import Console

    return Console().width


def show(blocks: Sequence[Block | str], fmt: str | None) -> None:
    """Print tables and text: at a terminal as wide as it is, where piped or with ``md`` in Markdown.

    Args:
        blocks: in order; text is left out in formats other than these two.
        fmt: ``None``: as stdout is.
    """
    if fmt is None and on_terminal():
        from rich.console import Console

        console = Console(highlight=False)
        for i, block in enumerate(blocks):
            if i:
                console.print()
            draw(block, console)
        return
    put(text(blocks, fmt or "md"))


def text(blocks: Sequence[Block | str], fmt: str = "md") -> str:
    """Render tables and text in one of the formats that are no terminal's."""
    if fmt != "md":
        return "\n\n".join(render(block.rows, block.columns, fmt) for block in blocks if isinstance(block, Block))
    parts = []
    for block in blocks:
        if isinstance(block, Block) and block.title:
            parts.append(f"### {safe.line(block.title)}")
        parts.append(block if isinstance(block, str) else render(block.rows, block.columns, "md"))
    return "\n\n".join(parts)


def draw(block: Block | str, console: Any) -> None:
    """Print a block to a terminal, with a note on the columns that have no place there."""
    from rich.text import Text

    if isinstance(block, str):
        console.print(Text(wrapped(safe.visible(block), console.width, hanging)), soft_wrap=True)
        return
    if block.title:
        console.print(Text(safe.line(block.title), style="bold"))
    shown = fitting(block.rows, block.columns, console.width)
    console.print(_table(block, shown, console.width))
    if missing := [title(column, " ") for column in block.columns if column not in shown]:
        note = f"{counted(len(missing), 'column')} left out here (--format md shows all): {', '.join(missing)}"
        console.print(Text(wrapped(note, console.width, hanging), style="dim"), soft_wrap=True)


def hanging(line: str) -> int:
    """Return where the text of a line begins: after a bullet, or after a name and two spaces."""
    found = re.match(r"- |\s*\S+(?: \S+)*?\s{2,}", line)
    return min(found.end(), 36) if found else len(line) - len(line.lstrip())


def title(column: Column, between: str = "\n") -> str:
    """Return all that stands above a column."""
    return between.join(map(safe.line, (*column.above, column.heading)))


def fitting(rows: Sequence[dict[str, Any]], columns: Sequence[Column], width: int) -> list[Column]:
    """Choose the columns that fit into a width: from the right, those go that name nothing."""
    shown = list(columns)
    least = {column.key: _least(texts(rows, column), column) for column in columns}
    while sum(least[c.key] for c in shown) + GAP * len(shown) - 1 > width and len(shown) > LEAST:
        others = [column for column in shown[1:] if not column.head]
        if not others:
            break
        shown.remove(others[-1])
    return shown


def _least(cells: Sequence[str], column: Column) -> int:
    """Return the narrowest a column may be: numbers stay in one line, text breaks between words."""
    words = [*title(column).split(), *((word for text in cells for word in text.split()) if _breaks(column) else cells)]
    longest = max(map(len, words), default=1)
    return min(longest, WORDY) if _breaks(column) else longest


def _breaks(column: Column) -> bool:
    return column.kind == "text" and not column.head


def texts(rows: Sequence[dict[str, Any]], column: Column) -> list[str]:
    """Format a column: whole numbers with separators, factors and bytes with as many decimals as each other."""
    values = [row.get(column.key) for row in rows]
    (column,) = settled(rows, [column])
    found = [cell(row, column).replace("**", "") for row in rows]
    numbers = [value for value in values if isinstance(value, int | float) and value == value]
    if column.kind == "bytes" and numbers:
        found = _in_one_unit(values, max(numbers), found)
    if column.kind in ("number", "mean", "progress"):
        found = [re.sub(r"(?<![\d.])\d{4,}", lambda m: f"{int(m[0]):,}", text) for text in found]
    return found


def _in_one_unit(values: Sequence[Any], most: float, found: list[str]) -> list[str]:
    """Format bytes in the unit of the most, unless the least would vanish there."""
    power = next((p for p in range(len(UNITS)) if most < 999.5 * 1000**p), len(UNITS) - 1)
    scaled = [None if v is None else v / 1000**power for v in values]
    digits = 0 if power == 0 else 1 if most / 1000**power >= 9.95 else 2
    if any(v and abs(v) < 10**-digits for v in scaled):
        return found
    return [t if v is None else f"{v:,.{digits}f} {UNITS[power]}" for v, t in zip(scaled, found, strict=True)]


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Distribute the width: to each column what it cannot do without, the rest to those that would take most lines."""
    widths = [_least(found, column) for column, found in zip(columns, cells, strict=True)]
    wanted = [max(map(len, [*found, *title(column).split("\n")])) for column, found in zip(columns, cells, strict=True)]
    for _ in range(width - sum(widths) - GAP * len(widths) + 1):
        most = max(range(len(widths)), key=lambda i: wanted[i] / max(widths[i], 1))
        if wanted[most] <= widths[most]:
            break
        widths[most] += 1
    return widths


def _table(block: Block, columns: Sequence[Column], width: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = block.rows
    padding = (0, GAP - 1, 0, 0)  # and a column between two
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding, collapse_padding=True)
    cells = [texts(rows, column) for column in columns]
    for column, room in zip(columns, _widths(columns, cells, width), strict=True):
        table.add_column(
            Text(title(column)), justify="left" if column.kind == "text" else "right", vertical="top",
            width=room, overflow="fold",
        )  # fmt: skip
    named = spans(rows, columns)
    for column, found in zip(columns, cells, strict=True):
        found[:] = [text if named.get((i, column.key), 1) else "" for i, text in enumerate(found)]
    for i, row in enumerate(rows):
        table.add_row(
            *(Text(found[i], style=_style(block, row, column)) for found, column in zip(cells, columns, strict=True))
        )
    return table


def _style(block: Block, row: dict[str, Any], column: Column) -> str:
    """Return the style of a cell; the best of a column is bold."""
    value = row.get(column.key)
    best = isinstance(value, Mean) and value.best
    return "bold" if best else block.styles.get(column.key, {}).get(str(value), "")
