"""Memory over a step and over a topology update, allocation by allocation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_backend, level
from dstrun.report.figure.split import PARTS, looks
from dstrun.report.load import Run, number, rows_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Memory held over the allocations and releases of one measured step and of one topology update, by part, of "
    "the seed whose peak is highest; the parts sum to what is held."
)
PHASES = {"prepare": "scoring", "step": "a step", "update": "an update"}


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel for each phase of a method, sparsity and backend; the axes of a row share their scale."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    found = [
        (f"{text}: {row.name}" + (f", {level(sparsity)}" if sparsity else ""), len(row.cells[sparsity]), phases)
        for text, rows in by_backend(run for run in runs if number(run.get("memory.peak_bytes"))).items()
        for _, row in rows
        for sparsity in sorted(row.cells)
        if (phases := timelines(max(row.cells[sparsity], key=lambda run: run.get("memory.peak_bytes"))))
    ]
    if not found:
        return None
    columns = max(len(phases) for *_, phases in found)
    figure, axes = grid(columns * len(found), columns=columns, height=1.9)
    for line, (text, _, phases) in enumerate(found):
        panels = axes[line * columns : (line + 1) * columns]
        top = max(sum(row[1:]) for rows in phases.values() for row in rows) / 1e6
        for axis, (phase, rows) in zip(panels, phases.items(), strict=False):
            events, *sizes = zip(*rows, strict=True)
            drawn = {part: [size / 1e6 for size in column] for part, column in zip(PARTS, sizes, strict=True)}
            for (part, look), below in zip(looks().items(), _bottoms(list(drawn.values())), strict=True):
                if any(drawn[part]):
                    ends = [b + size for b, size in zip(below, drawn[part], strict=True)]
                    axis.fill_between(events, below, ends, step="post", label=part, **bare(look))
            axis.set(ylim=(0, 1.05 * top), xlim=(events[0], events[-1]))
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.set_xlabel("allocations and releases")
            title(axis, f"{text}, {PHASES[phase]}", columns)
        panels[0].set_ylabel("held (MB)")
        for axis in panels[len(phases) :]:
            axis.set_axis_off()
    finish(figure, list(PARTS), [seeds for _, seeds, _ in found])
    return figure


PRESET = Preset(draw, CAPTION, "finished run that left memory.csv", place=130)


def timelines(run: Run) -> dict[str, list[list[int]]]:
    """Read ``memory.csv``: of every phase the rows, event number and bytes by part; empty where it is not readable."""
    found: dict[str, list[list[int]]] = {}
    try:
        for row in csv.DictReader(StringIO(rows_text(run, "memory.csv"))):
            if row["phase"] in PHASES:
                found.setdefault(row["phase"], []).append([int(float(row[key])) for key in ("event", *PARTS)])
    except (ValueError, TypeError, LookupError, csv.Error):
        return {}
    return {phase: found[phase] for phase in PHASES if len(found.get(phase, ())) > 1}


def bare(look: dict[str, Any]) -> dict[str, Any]:
    """Return a look without its border, which is of the paper's color and would hide what is held for a moment."""
    return look | {"linewidth": 0}


def _bottoms(columns: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return where each part begins above those before it."""
    bottoms = [[0.0] * len(columns[0])]
    for column in columns[:-1]:
        bottoms.append([low + size for low, size in zip(bottoms[-1], column, strict=True)])
    return bottoms
