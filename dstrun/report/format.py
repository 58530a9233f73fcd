"""Rows to text: one renderer for every verb that prints rows.

``md``, ``latex`` and ``html`` are for readers: human units, aligned columns. ``csv`` and ``json`` are for programs: raw
values.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

from dstrun.config.option import nearest
from dstrun.system import safe
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import fixed, in_bytes, in_seconds

FORMATS = ("md", "csv", "json", "latex", "html")
Kind = Literal["text", "number", "percent", "bytes", "seconds", "flops", "x", "progress", "mean", "signed", "share"]


@dataclass(frozen=True)
class Column:
    """One column: the key of its value in a row, its title, its unit, and the decimals shown to readers.

    A ``progress`` column shows ``3/10``: its own value, and that of the key ``of``, which csv and json keep apart.
    Columns that share the headings ``above`` stand below them together. A ``head`` column names rows, and equal values
    that follow each other are written once where the format can.
    """

    key: str
    title: str = ""
    kind: Kind = "text"
    digits: int = 1
    of: str = ""
    above: tuple[str, ...] = ()
    head: bool = False

    @property
    def heading(self) -> str:
        """Return the title, or the key where there is none."""
        return self.title or self.key

    @property
    def keys(self) -> list[str]:
        """Name the values that csv and json carry."""
        return [self.key, self.of] if self.of else [self.key]


@dataclass(frozen=True)
class Mean:
    """A cell over seeds; ``std`` is None for a single seed, ``mean`` where none is finished.

    ``n`` seeds are finished of the ``of`` that there are, should be or have been begun. ``best`` prints it bold;
    ``marks`` are signs of footnotes; ``at`` is the sparsity in percent, as shown, where its column does not say the
    real one; ``difference`` is to the reference. What is not ``counted`` has its number of seeds said elsewhere.
    """

    mean: float | None
    std: float | None = None
    n: int = 0
    of: int = 0
    best: bool = False
    marks: str = ""
    at: str | None = None
    difference: float | None = None
    counted: bool = True

    @property
    def count(self) -> str:
        """Format how many seeds, ``(3)`` or ``(2 of 3)``."""
        return f"({self.n} of {self.of})" if self.of > self.n else f"({self.n})"

    def rest(self, digits: int) -> str:
        """Return what comes after the marks: the sparsity reached, and the difference in brackets."""
        at = "" if self.at is None else f" at {self.at}%"
        return at + ("" if self.difference is None else f" [{self.difference:+.{digits}f}]")


@dataclass(frozen=True)
class Cited:
    """A published number, the mark of the footnote that says where, and the ``sign`` of another training before it."""

    value: float
    mark: str
    sign: str = ""

    def text(self, digits: int) -> str:
        """Format sign and number, without the mark."""
        return f"{self.sign} {self.value:.{digits}f}".strip()


def render(rows: Sequence[dict[str, Any]], columns: Sequence[Column], fmt: str = "md") -> str:
    """Render rows in one of ``FORMATS``; no newline at the end.

    Args:
        rows: values by column key; a missing value or None is shown as nothing known.
        columns: what to show, in this order.
        fmt: md (aligned GitHub table), csv, json (a list of objects), latex (a booktabs tabular) or html (a table).

    Raises:
        ConfigError: an unknown format.
    """
    writers = {"md": _md, "csv": _csv, "json": _json, "latex": _latex, "html": html}
    if fmt not in writers:
        raise ConfigError(f"--format {fmt} is not known: choose {', '.join(FORMATS)}{nearest(fmt, FORMATS)}")
    return writers[fmt](rows, columns)


def _md(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    columns = settled(rows, columns)
    table = [[_md_escape(" ".join((*c.above, c.heading))) for c in columns]]
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
    return safe.line(text).replace("|", "\\|")


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    keys = [key for column in columns for key in column.keys]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe.cell, keys))
    for row in rows:
        values = [_raw(row.get(key)) for key in keys]
        writer.writerow([safe.cell(" ".join(map(str, v)) if isinstance(v, list) else v) for v in values])
    return text.getvalue().rstrip("\n")


def _json(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    keys = [key for column in columns for key in column.keys]
    return json.dumps([{key: _raw(row.get(key)) for key in keys} for row in rows], indent=2, ensure_ascii=False)


def _raw(value: Any) -> Any:
    """Leave a value as it is, but for nan and infinity, which JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def headings(columns: Sequence[Column]) -> list[list[tuple[str, int]]]:
    """Return the lines above the last line of headings: texts, each with the columns it spans."""
    lines = []
    for level in range(max((len(c.above) for c in columns), default=0)):
        line: list[tuple[str, int, tuple[str, ...]]] = []
        for column in columns:
            under = column.above[: level + 1]
            text = under[level] if len(under) > level else ""
            if line and text and line[-1][2] == under:
                line[-1] = (text, line[-1][1] + 1, under)
            else:
                line.append((text, 1, under))
        lines.append([(text, span) for text, span, _ in line])
    return lines


def spans(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> dict[tuple[int, str], int]:
    """Count, by row and key of a head column, the rows that its value names; 0 where one above says it already.

    The last head column names each row by itself.
    """
    heads = [c.key for c in columns if c.head]
    found = {(i, key): 1 for i in range(len(rows)) for key in heads}
    for place, key in enumerate(heads[:-1]):
        first = 0
        for i in range(1, len(rows)):
            if all(rows[i].get(k) == rows[first].get(k) for k in heads[: place + 1]):
                found[first, key], found[i, key] = found[first, key] + 1, 0
            else:
                first = i
    return found


def _latex(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    columns = settled(rows, columns)
    spec = "".join("l" if c.kind == "text" else "r" for c in columns)
    lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule"]
    for line in headings(columns):
        texts, rules, at = [], [], 1
        for text, span in line:
            texts.append(rf"\multicolumn{{{span}}}{{c}}{{{latex_escape(text)}}}" if text else "")
            rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if text else []
            at += span
        lines += [" & ".join(texts) + r" \\", " ".join(rules)]
    lines += [" & ".join(_stacked(c.heading) for c in columns) + r" \\", r"\midrule"]
    spanned = spans(rows, columns)
    for i, row in enumerate(rows):
        if i and any(spanned[i, c.key] > 1 for c in columns if c.head):
            lines.append(r"\addlinespace")
        cells = [_latex_cell(row, c, spanned.get((i, c.key), 1)) for c in columns]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _stacked(heading: str) -> str:
    """Write a heading, of several lines above each other."""
    lines = [latex_escape(line) for line in heading.split("\n")]
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def html(rows: Sequence[dict[str, Any]], columns: Sequence[Column], caption: str = "") -> str:
    """Render a table element without style: numbers have the class ``num``, the best means ``best``."""
    columns = settled(rows, columns)
    lines = ["<table>"] + ([f"<caption>{escape(caption)}</caption>"] if caption else []) + ["<thead>"]
    for line in headings(columns):
        cells = [
            f'<th scope="colgroup" colspan="{span}">{escape(text)}</th>' if text else "<td></td>" for text, span in line
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    texts = [f'<th scope="col"{_number(c)}>{escape(c.heading)}</th>' for c in columns]
    lines += [f"<tr>{''.join(texts)}</tr>", "</thead>", "<tbody>"]
    spanned = spans(rows, columns)
    for i, row in enumerate(rows):
        cells = [_html_cell(row, c, spanned.get((i, c.key))) for c in columns]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _number(column: Column) -> str:
    return "" if column.kind == "text" else ' class="num"'


def _html_cell(row: dict[str, Any], column: Column, span: int | None) -> str:
    value, text = row.get(column.key), escape(cell(row, column).replace("**", ""))
    if span == 0:
        return ""
    if span:
        return f'<th scope="rowgroup" rowspan="{span}">{text}</th>' if span > 1 else f'<th scope="row">{text}</th>'
    if isinstance(value, Cited):
        text = f"{escape(value.text(column.digits))}<sup>{escape(value.mark)}</sup>"
    if isinstance(value, Mean) and value.best:
        return f'<td class="num best">{text}</td>'
    return f"<td{_number(column)}>{text}</td>"


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$",
    "≠": r"$\neq$", "‡": r"$\ddagger$", "–": "--", "—": "---", "×": r"$\times$", "γ": r"$\gamma$", "ő": r"\H{o}",
    "é": r"\'{e}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(LATEX.get(character, character) for character in safe.line(text))


def _latex_cell(row: dict[str, Any], column: Column, span: int = 1) -> str:
    value = row.get(column.key)
    if span != 1:
        return rf"\multirow{{{span}}}{{*}}{{{latex_escape(cell(row, column))}}}" if span else ""
    if isinstance(value, Cited):
        sign = f"{latex_escape(value.sign)} " if value.sign else ""
        return rf"{sign}${value.value:.{column.digits}f}^{{{latex_escape(value.mark)}}}$"
    if isinstance(value, Mean) and value.mean is not None:
        number = f"{value.mean:.{column.digits}f}"
        number += "" if value.std is None else rf" \pm {value.std:.{column.digits}f}"
        number = rf"\mathbf{{{number}}}" if value.best else number
        rest = re.sub(r"\[(.*)\]", r"[$\1$]", value.rest(column.digits).replace("%", r"\%"))
        count = f" {value.count}" if value.counted else ""
        return f"${number}${count}{latex_escape(value.marks)}{rest}"
    text = cell(row, column)
    if text == "-":
        return "--"
    scientific = re.fullmatch(r"(-?[\d.]+)e(-?\d+)", text)
    if column.kind == "flops" and scientific:
        return rf"${scientific[1]} \times 10^{{{scientific[2]}}}$"
    if column.kind == "x" and text.endswith("x"):
        return rf"${text[:-1]}\times$"
    return latex_escape(text)


def cell(row: dict[str, Any], column: Column) -> str:
    """Format a value for readers."""
    value = row.get(column.key)
    if value is None:
        return "-"
    if column.kind == "progress":
        return f"{value}/{row[column.of]}" if row.get(column.of) is not None else str(value)
    if isinstance(value, Mean):
        return _mean(value, column.digits)
    if isinstance(value, Cited):
        return f"{value.text(column.digits)} [{value.mark}]"
    if isinstance(value, list):
        return safe.line(", ".join(map(str, value)))
    if not isinstance(value, int | float) or column.kind == "text":
        return safe.visible(str(value))
    if not math.isfinite(value):
        return str(value)
    if column.kind == "number":
        return str(value) if isinstance(value, int) else f"{value:.{column.digits}f}"
    if column.kind == "share":
        return fixed(value, column.digits)
    if column.kind == "signed":
        return f"{value:+.{column.digits}f}"
    if column.kind == "percent":
        return f"{value:.{column.digits}f}%"
    if column.kind == "bytes":
        return in_bytes(value)
    if column.kind == "seconds":
        return in_seconds(value)
    if column.kind == "flops":
        return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].replace('+', '')}{m[2]}", f"{value:.2e}")
    return f"{value:.{column.digits}f}x"


def settled(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> list[Column]:
    """Set for every column of factors the decimals that show three digits of its smallest value: four at most."""
    return [replace(c, digits=_decimals([row.get(c.key) for row in rows])) if c.kind == "x" else c for c in columns]


def _decimals(values: Sequence[Any]) -> int:
    numbers = [abs(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if min(numbers, default=0) >= 100:
        return 0
    least = min(filter(None, numbers), default=1.0)
    digits = next((digits for digits in range(4) if least * 10**digits >= 99.5), 4)
    while digits and all(round(n, digits) == round(n, digits - 1) for n in numbers):  # no column of zeros
        digits -= 1
    return digits


def _mean(value: Mean, digits: int) -> str:
    if value.mean is None:
        return f"- {value.marks}".rstrip()
    text = f"{value.mean:.{digits}f}"
    text += "" if value.std is None else f" ± {value.std:.{digits}f}"
    return f"{f'**{text}**' if value.best else text} {value.count}{value.marks}{value.rest(digits)}"
