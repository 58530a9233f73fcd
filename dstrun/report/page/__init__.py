"""One page of a study: question, sweeps, tables, figures, failures, settings, environment and every run.

A file of HTML that asks the network for nothing, and reads without scripts; those sort and filter the table of runs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrun.config.option import nearest
from dstrun.report import table
from dstrun.report.fields import outline, where
from dstrun.report.format import html
from dstrun.report.load import Run
from dstrun.report.names import worded
from dstrun.report.page import drawing, settings, sweep
from dstrun.report.page.run import COLUMNS, entry, failures
from dstrun.report.published import references
from dstrun.report.status import STATES, describe
from dstrun.report.table.latex import named
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import write_atomic

HERE = Path(__file__).parent
COMPARED = "accuracy"
"""The kind of table that has published numbers, so that their footnotes are read once."""
SHOWN = 500
"""Rows of runs that scripts show at first; a browser needs seconds to lay out thousands."""


def write(
    runs: Sequence[Run], roots: Sequence[Path], out: Path, now: float,
    title: str = "", question: str = "", conditions: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the page of some runs.

    Args:
        runs: that it is about.
        roots: folders they were found in; what their sweeps still want is on the page too.
        out: file ending in ``.html``; the page's links to folders start there.
        now: unix time that heartbeats are held against; nothing else on the page depends on it.
        title: the experiments by name if empty.
        question: made of what varies among the runs if empty.
        conditions: that runs were picked by, as ``fields.where`` takes them; they hold for planned runs too.

    Raises:
        ConfigError: ``out`` is no html, or cannot be written.
    """
    if out.suffix.lower() != ".html":
        raise ConfigError(f"--out {out} must end in .html{nearest(out.suffix, ['.html'])}")
    text = render(runs, roots, out.parent, now, title, question, conditions)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {why(error)}") from error


def render(
    runs: Sequence[Run], roots: Sequence[Path], base: Path, now: float,
    title: str = "", question: str = "", conditions: Sequence[str] = (),
) -> str:  # fmt: skip
    """Make the text of a page whose links start at the folder ``base``; the rest as for ``write``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    notes = sweep.notes(roots, runs)
    planned = where(sweep.planned(notes), conditions)
    every = [run if run.record is not None else outline(run, None) for run in [*runs, *planned]]
    told = [describe(run, run.id, now) for run in every]
    states = [str(row["state"]) for row in told]
    flat = [settings.settings(run) for run in every]
    spread = settings.spread(flat)
    differing = [setting for setting in spread if not setting.shared]
    apart = settings.apart(every, flat)
    differ, along = settings.brought(differing)
    keys = [setting.key for setting in differing if setting.key not in ("sparsity", "seed")]
    entries = [entry(run, states[i], base, apart[i], flat[i], keys) for i, run in enumerate(every)]
    tables, common_notes = _tables(runs)
    drawings, left_out = drawing.drawings(runs)
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return made.get_template("page.html.jinja").render(
        title=title or ", ".join(sorted({run.folder.parent.name for run in every})),
        question=question or settings.question(every),
        records=sum(run.record is not None for run in runs),
        newest=sweep.at(newest) if (newest := sweep.newest(every, notes)) else None,
        counts=[(state, n) for state, n in _counted(states) if n],
        sweeps=list(sweep.described(notes, {run.folder: state for run, state in zip(every, states, strict=True)})),
        tables=tables,
        common_notes=common_notes,
        drawings=drawings,
        left_out=left_out,
        inks=drawing.inks(drawings),
        failures=failures(entries, [row["message"] for row in told]),
        shared=[setting for setting in spread if setting.shared],
        differing=differ,
        brought=along,
        environment=settings.environment(run for run in runs if run.record is not None),
        entries=entries,
        shown=SHOWN,
        common_name=_common([run.id for run in every]),
        any_apart=any(apart),
        any_dirty=any(e.commit and e.commit.endswith("*") for e in entries),
        columns=COLUMNS,
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        js=(HERE / "page.js").read_text(encoding="utf-8"),
    )  # fmt: skip


def _common(ids: Sequence[str]) -> str:
    """Return the beginning that all names have, whole words of it."""
    return re.sub(r"[^-]*$", "", os.path.commonprefix(ids)) if len(ids) > 1 else ""  # noqa: RUF071  letters


def _counted(states: Sequence[str]) -> list[tuple[str, int]]:
    counts = Counter(states)
    return [(state, counts[state]) for state in [*STATES, *sorted(set(counts) - set(STATES))]]


@dataclass
class Preset:
    """A kind of table: ``parts`` are titles and tables in HTML, ``notes`` those that not all kinds have."""

    name: str
    parts: list[tuple[str, str]]
    notes: list[str]


def _tables(runs: Sequence[Run]) -> tuple[list[Preset], list[str]]:
    """Build every table that has something to show, the first with what was published beside it.

    Gives the notes that all have apart, to be said once.
    """
    found = []
    for name in table.PRESETS:
        with_published = references() if name == COMPARED else None
        built = table.build(runs, name, table.Options(published=with_published))
        if built.cells:
            parts = [(title, html(rows, columns, title)) for title, rows, columns in map(named, built.parts)]
            found.append(Preset(drawing.titled(name), parts, [worded(note) for note in built.notes]))
    common = [note for note in (found[0].notes if len(found) > 1 else ()) if all(note in one.notes for one in found)]
    for preset in found:
        preset.notes = [note for note in preset.notes if note not in common]
    return found, common
