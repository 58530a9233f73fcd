"""A table as a paper's source: an environment to paste, with its caption, label and notes, that fits its column."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dstrun.report.format import Column, Mean, latex_escape, render
from dstrun.report.names import NAMES, spelled, worded
from dstrun.system import safe

Part = tuple[str, list[dict[str, Any]], list[Column]]
"""The title of a block, its rows and its columns."""
PACKAGES = (
    r"% In the preamble: \usepackage[utf8]{inputenc} \usepackage[T1]{fontenc}"
    "\n"
    r"% \usepackage{booktabs,multirow,threeparttable,graphicx}"
)
"""What the source needs."""
LETTERS = 11
"""Of a heading; longer ones are folded."""
MUCH = 300
"""Letters of all notes."""
HEADS = {"method": "Method", "sparsity": "Sparsity", "model": "Network", "dataset": "Data set", "grow.gamma": "γ"}
"""Of columns; those of other fields are the field in words."""


def named(part: Part, names: Mapping[str, str] | None = None, over: str = "") -> Part:
    """Write a block with the names of papers in place of keys.

    Args:
        part: as it is for readers.
        names: further ones by key.
        over: fields of columns, to stand above all of these.
    """
    title, rows, columns = part
    heads = {column.key for column in columns if column.head}
    rows = [
        {key: spelled(value, names) if key in heads and isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    above = (HEADS.get(over, heading(over)),) if over else ()
    made = [
        replace(c, title=HEADS.get(c.heading, heading(c.heading)) if c.heading.strip() else " ")
        if c.head
        else replace(c, title=heading(c.heading, names), above=(*above, *(heading(text, names) for text in c.above)))
        for c in columns
    ]
    return spelled(title, names), rows, made


def heading(text: str, names: Mapping[str, str] | None = None) -> str:
    """Write the heading of a column: a field or value in words, the first letter large."""
    said = spelled(text, names)
    said = worded(said) if said == text and re.fullmatch(r"[a-z_.]+", text) and text not in NAMES else said
    said = said.replace(", x ", ", × ")
    return said[:1].upper() + said[1:] if said.split(" ")[0].islower() else said


def document(
    parts: Sequence[Part],
    notes: Sequence[str],
    kind: str,
    over: str,
    caption: str,
    label: str,
    names: Mapping[str, str] | None,
) -> str:
    """Write an environment for each block, packages first, the notes below each."""
    texts = [PACKAGES]
    for place, part in enumerate(parts):
        title, rows, columns = named(part, names, over)
        n = seeds(rows)
        if n:
            rows = [
                {k: replace(v, counted=False) if isinstance(v, Mean) else v for k, v in row.items()} for row in rows
            ]
        said = [
            note if n is None else note.replace("over seeds (n)", f"over {n} seed{'s' * (n > 1)}") for note in notes
        ]
        mark = f"-{place + 1}" if place else ""
        key = (label or f"tab:{kind}-{re.sub(r'[^a-z0-9]+', '-', part[0].lower()).strip('-')}") + mark
        texts.append(_environment(part[0], title, rows, columns, said, caption, key, names))
    return "\n\n".join(texts)


def seeds(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how many seeds all cells have; None where they differ or are not finished."""
    counts = {(cell.n, max(cell.of, cell.n)) for row in rows for cell in row.values() if isinstance(cell, Mean)}
    ((n, of),) = counts if len(counts) == 1 else {(0, 0)}
    return n if n and n == of else None


def _environment(
    key: str, title: str, rows: Sequence[dict[str, Any]], columns: Sequence[Column], notes: Sequence[str],
    caption: str, label: str, names: Mapping[str, str] | None,
) -> str:  # fmt: skip
    columns = [c if c.head else replace(c, title=_folded(c.heading)) for c in columns]
    tabular = render(rows, columns, "latex")
    said = [_note(worded(note, names)) for note in notes]
    # What has much to say below it is as wide as the column, or the notes would be a narrow strip.
    wide = sum(map(len, notes)) > MUCH
    shown = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
    return "\n".join(
        [
            f"% {safe.line(key)}",
            r"\begin{table}[t]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\sbox0{{{tabular}}}% measured first, and made smaller where it is wider than its column",
            r"\begin{threeparttable}",
            rf"\caption{{{latex_escape(caption or title)}}}",
            rf"\label{{{re.sub(r'[^A-Za-z0-9:_.-]', '', label)}}}",
            r"\begin{tabular}{@{}c@{}}",
            rf"\makebox[\linewidth]{{{shown}}}" if wide else shown,
            r"\end{tabular}",
            *([r"\begin{tablenotes}[flushleft]\footnotesize", *said, r"\end{tablenotes}"] if said else []),
            r"\end{threeparttable}",
            r"\end{table}",
        ]
    )


def _folded(heading: str) -> str:
    """Fold a heading, never after its sign of multiplication."""
    return "\n".join(textwrap.wrap(heading.replace("× ", "×§"), LETTERS)).replace("§", " ")


def _note(text: str) -> str:
    """Write a note: with its mark where it has one, and as a sentence."""
    found = re.match(r"([a-z]{1,2}(?:(?:-|, )[a-z]{1,2})*|[≠?])(?:: )|([†‡]) ", text)
    mark, text = ((found[1] or found[2]), text[found.end() :]) if found else ("", text)
    text = dashes(latex_escape((text[:1].upper() + text[1:]).replace("+-", "±").replace(", x ", ", × ")))
    return rf"\item[{latex_escape(mark)}] {text}." if mark else rf"\item{{}} {text}."


def dashes(text: str) -> str:
    """Write dashes between words and numbers as a printer does: ``1-2`` as ``1--2``, `` - `` as `` -- ``."""
    text = re.sub(r"(?<![\w.-])(\d+)-(\d+)(?![\w.-])", r"\1--\2", text)
    return re.sub(r"(^|(?<=[\s(]))-(?=\s)", "--", text)
