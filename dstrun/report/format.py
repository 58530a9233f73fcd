"""Rows to text: one renderer for every verb that prints rows.

``md`` and ``latex`` are for readers: human units, aligned columns. ``csv`` and ``json`` are for programs: raw values.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dstrun.option import ConfigError, nearest

FORMATS = ("md", "csv", "json", "latex")
Kind = Literal["text", "number", "percent", "bytes", "seconds", "flops", "x", "progress", "mean"]


@dataclass(frozen=True)
class Column:
    """One column: the key of its value in a row, its title, its unit, and the decimals shown to readers.

    A ``progress`` column shows ``3/10``: its own value, and that of the key ``of``, which csv and json keep apart.
    """

    key: str
    title: str = ""
    kind: Kind = "text"
    digits: int = 1
    of: str = ""

    @property
    def heading(self) -> str:
        """Give the title, or the key where there is none."""
        return self.title or self.key

    @property
    def keys(self) -> list[str]:
        """Name the values that csv and json carry."""
        return [self.key, self.of] if self.of else [self.key]


@dataclass(frozen=True)
class Mean:
    """A cell over seeds; ``std`` is None for a single seed, ``mean`` where none is finished.

    ``best`` prints it bold; ``marks`` are the signs of footnotes, ``*`` and ``†``; ``at`` is the sparsity in percent
    that training reached, where its column does not say it.
    """

    mean: float | None
    std: float | None = None
    n: int = 0
    best: bool = False
    marks: str = ""
    at: float | None = None

    @property
    def where(self) -> str:
        """Say the sparsity reached, if it is to be said."""
        return "" if self.at is None else f" at {self.at:.1f}%"


def render(rows: Sequence[dict[str, Any]], columns: Sequence[Column], fmt: str = "md") -> str:
    """Render rows in one of ``FORMATS``; no newline at the end.

    Args:
        rows: values by column key; a missing value or None is shown as nothing known.
        columns: what to show, in this order.
        fmt: md (aligned GitHub table), csv, json (a list of objects) or latex (a booktabs tabular).

    Raises:
        ConfigError: an unknown format.
    """
    writers = {"md": _md, "csv": _csv, "json": _json, "latex": _latex}
    if fmt not in writers:
        raise ConfigError(f"--format {fmt} is not known: choose {', '.join(FORMATS)}{nearest(fmt, FORMATS)}")
    return writers[fmt](rows, columns)


def _md(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    table = [[_md_escape(c.heading) for c in columns]]
    table += [[_md_escape(cell(row, c)) for c in columns] for row in rows]
    widths = [max(3, *(len(line[i]) for line in table)) for i in range(len(columns))]
    lines = []
    for line in table:
        padded = [
            text.ljust(width) if column.kind == "text" else text.rjust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    rule = [
        "-" * width if column.kind == "text" else "-" * (width - 1) + ":"
        for width, column in zip(widths, columns, strict=True)
    ]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _md_escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    keys = [key for column in columns for key in column.keys]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(keys)
    for row in rows:
        values = [_raw(row.get(key)) for key in keys]
        writer.writerow([" ".join(map(str, v)) if isinstance(v, list) else v for v in values])
    return text.getvalue().rstrip("\n")


def _json(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    keys = [key for column in columns for key in column.keys]
    return json.dumps([{key: _raw(row.get(key)) for key in keys} for row in rows], indent=2, ensure_ascii=False)


def _raw(value: Any) -> Any:
    """Leave a value as it is, but for nan and infinity, which JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latex(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    spec = "".join("l" if c.kind == "text" else "r" for c in columns)
    lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule"]
    lines += [" & ".join(latex_escape(c.heading) for c in columns) + r" \\", r"\midrule"]
    lines += [" & ".join(_latex_cell(row, c) for c in columns) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_cell(row: dict[str, Any], column: Column) -> str:
    value = row.get(column.key)
    if isinstance(value, Mean) and value.mean is not None:
        number = f"{value.mean:.{column.digits}f}"
        number += "" if value.std is None else rf" \pm {value.std:.{column.digits}f}"
        number = rf"\mathbf{{{number}}}" if value.best else number
        return f"${number}$ ({value.n}){latex_escape(value.marks)}" + value.where.replace("%", r"\%")
    text = cell(row, column)
    scientific = re.fullmatch(r"(-?[\d.]+)e(-?\d+)", text)
    if column.kind == "flops" and scientific:
        return rf"${scientific[1]} \times 10^{{{scientific[2]}}}$"
    if column.kind == "x" and text.endswith("x"):
        return rf"${text[:-1]}\times$"
    return latex_escape(text)


def cell(row: dict[str, Any], column: Column) -> str:
    """Say a value as readers want it."""
    value = row.get(column.key)
    if value is None:
        return "-"
    if column.kind == "progress":
        return f"{value}/{row[column.of]}" if row.get(column.of) is not None else str(value)
    if isinstance(value, Mean):
        return _mean(value, column.digits)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, int | float) or column.kind == "text":
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if column.kind == "number":
        return str(value) if isinstance(value, int) else f"{value:.{column.digits}f}"
    if column.kind == "percent":
        return f"{value:.{column.digits}f}%"
    if column.kind == "bytes":
        return in_bytes(value)
    if column.kind == "seconds":
        return in_seconds(value)
    if column.kind == "flops":
        return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].replace('+', '')}{m[2]}", f"{value:.2e}")
    return f"{value:.3g}x"


def _mean(value: Mean, digits: int) -> str:
    if value.mean is None:
        return f"- {value.marks}".rstrip()
    text = f"{value.mean:.{digits}f}"
    text += "" if value.std is None else f" ± {value.std:.{digits}f}"
    return f"{f'**{text}**' if value.best else text} ({value.n}){value.marks}{value.where}"


def in_bytes(value: float) -> str:
    """Say bytes in decimal units, three digits: ``42.8 MB``."""
    if value < 999.5:
        return f"{value:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"


def in_seconds(value: float) -> str:
    """Say seconds as ``12.3 ms``, ``9.1 s``, ``1m 20s``, ``3h 05m`` or ``2d 04h``."""
    if value < 0.9995:
        return f"{1000 * value:.3g} ms" if value else "0 s"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}m {seconds:02d}s"
    days, hours_left = divmod(hours, 24)
    return f"{hours}h {minutes_left:02d}m" if days == 0 else f"{days}d {hours_left:02d}h"
