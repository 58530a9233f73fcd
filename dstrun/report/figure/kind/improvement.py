"""Training FLOPs that GSE saves over RigL, by sparsity and update interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Row, unmet
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, aside, points
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import SPARSITY, Panel, but_growth, dress, panels, ticks, too_many
from dstrun.report.load import Run, natural, number
from dstrun.report.style import LINES, MARKERS, MOST, NEUTRAL
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Training FLOPs that GSE saves over RigL, in percent of RigL's, by sparsity and update interval, over pairs of "
    f"runs with one seed that differ in growth alone; {ERRORS}."
)
Line = tuple[str, Row, dict[float, list[float]]]
"""An update interval, a row of GSE, and what its seeds save at each sparsity."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model and dataset in which runs of GSE and RigL are alike in all but growth."""
    found: dict[Panel, list[Line]] = {}
    for panel, line in _lines(runs):
        found.setdefault(panel, []).append(line)
    if not found:
        return None
    import matplotlib as mpl

    dress(row for lines in found.values() for _, row, _ in lines)

    intervals = sorted({interval for lines in found.values() for interval, _, _ in lines}, key=natural)
    names = sorted({_name(*line[:2]) for lines in found.values() for line in lines}, key=natural)
    if len(names) > MOST:
        raise ConfigError(too_many([row for lines in found.values() for _, row, _ in lines]))
    figure, axes = grid(len(found), "training FLOPs saved (%)", rows=len(names))
    for axis, (panel, lines) in zip(axes, found.items(), strict=True):
        levels = sorted(set().union(*(saved for _, _, saved in lines)))
        lines.sort(key=lambda line: (natural(line[0]), line[1].rank()))
        for place, (interval, row, saved) in enumerate(lines):
            at = [(levels.index(s) + aside(place, len(lines)), saved[s]) for s in sorted(saved)]
            color = row.look.color
            if len(intervals) > 1:  # from dark to light, an order that greyscale keeps
                color = mpl.colormaps["viridis"](0.8 * intervals.index(interval) / (len(intervals) - 1))
            points(
                axis,
                row,
                at,
                color=color,
                marker=MARKERS[place % len(MARKERS)],
                linestyle=LINES[place % len(LINES)],
                label=_name(interval, row),
            )
        axis.axhline(0, color=NEUTRAL, linewidth=0.7)
        axis.set_xticks(range(len(levels)), ticks(levels))
        axis.set_xlim(-0.5, len(levels) - 0.5)
        axis.set_xlabel("sparsity (%)")
        axis.grid(visible=False, axis="x")
        title(axis, panel.title)
    drawn = [line for lines in found.values() for line in lines]
    n = [len(values) for *_, saved in drawn for values in saved.values()]
    finish(figure, names, n, unmet=unmet((row.name, row.cells[s]) for _, row, saved in drawn for s in saved))
    return figure


PRESET = Preset(draw, CAPTION, "runs of GSE and RigL that differ in growth alone", place=60)


def _lines(runs: Sequence[Run]) -> Iterator[tuple[Panel, Line]]:
    """Pair the runs of GSE with those of RigL, a row of GSE at a time; rows without a pair are left out."""
    counted = [run for run in runs if run.done and number(run.get("flops.train"))]
    rigl = {_pair(run): run.get("flops.train") for run in counted if run.get("choices.grow") == "gradient"}
    gse = [run for run in counted if run.get("choices.grow") == "gse"]
    for panel, rows in panels(gse, [SPARSITY], interval).items():
        for row in rows:
            saved = {s: list(_saved(cell, rigl)) for s, cell in row.cells.items()}
            if any(saved.values()):
                yield panel._replace(detail=""), (panel.detail, row, {s: v for s, v in saved.items() if v})


def _saved(cell: Iterable[Run], rigl: dict[Any, float]) -> Iterator[float]:
    for run in cell:
        if _pair(run) in rigl:
            yield 100 * (1 - run.get("flops.train") / rigl[_pair(run)])


def _pair(run: Run) -> tuple[Any, ...]:
    return run.get("accuracy.split"), run.seed, but_growth(run)


def interval(run: Run) -> str:
    """Return how often a run updates its topology, as its settings do."""
    schedule = run.get("config.schedule", {})
    if schedule.get("interval_steps"):
        return f"every {schedule['interval_steps']:,} steps"
    if schedule.get("updates") is not None:
        return f"{schedule['updates']:,} updates"
    return f"every {schedule.get('recipe_interval_steps', 0):,} of {schedule.get('recipe_steps', 0):,} steps"


def _name(interval: str, row: Row) -> str:
    return f"{row.name}, {interval}"
