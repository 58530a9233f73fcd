"""Density by layer, at the start and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Row, unmet
from dstrun.report.figure.asked import name as shown
from dstrun.report.figure.canvas import finish, grid, spread, title
from dstrun.report.figure.marks import aside
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_sparsity, in_order
from dstrun.report.load import Run
from dstrun.report.style import NEUTRAL, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Density of every prunable layer, from input to output, mean over seeds: hollow markers on a pale dotted "
    "line at the first step, filled markers at the end of training, where a method has moved connections "
    "between layers."
)
MOST_NAMES = 20
"""More layers than these are numbered."""


MOVED = 0.01
"""Layers whose density changed by less, of what it was, have not moved."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity, of the runs whose records have the field ``layers``."""
    panels = list(by_sparsity(run for run in runs if run.get("layers")))
    if not panels:
        return None
    names = in_order(row for _, rows in panels for row, _ in rows)
    figure, axes = grid(len(panels), "density (%)", rows=len(names), columns=2, height=2.3)
    still: dict[str, bool] = {}
    starts: dict[str, str] = {}
    for axis, (text, rows) in zip(axes, panels, strict=True):
        found = [(row, _means(cell, "initial"), _means(cell, "active")) for row, cell in rows]
        moving = [row.name for row, start, end in found if _moved(start, end)]
        _starts(axis, found, starts)
        for row, _, end in found:
            still[row.name] = still.get(row.name, True) and row.name not in moving
            if row.name in moving:
                shift = aside(moving.index(row.name), len(moving))
                color, marker, line = row.look
                xs = [i + 1 + shift for i in range(len(end))]
                axis.plot(xs, end, color=color, marker=marker, linestyle=line, label=row.name, **END)
        spread(axis.yaxis, [density for _, start, end in found for density in (*start, *end)])
        _name_layers(axis, rows[0][1][0].get("layers"))
        title(axis, text if moving else f"{text}: {STILL}", 2)
    cells = [(row.name, cell) for _, rows in panels for row, cell in rows]
    finish(figure, names, [len(cell) for _, cell in cells], _handles(starts, all(still.values())), unmet(cells))
    if unmoved := [name for name, is_still in still.items() if is_still]:
        figure.note += f"; layers kept their density under {', '.join(map(shown, unmoved))}"  # type: ignore[attr-defined]
    return figure


PRESET = Preset(draw, CAPTION, "finished sparse run with layers in its record", place=90)
STILL = "no layer changed"
START: dict[str, Any] = {
    "linestyle": ":", "fillstyle": "none", "linewidth": 0.9, "markersize": 4.5, "markeredgewidth": 0.7, "zorder": 1.8,
}  # fmt: skip
END: dict[str, Any] = {"linewidth": 0.7}
START_MARKERS = ("o", "s", "^", "D")
Layers = tuple[Row, list[float], list[float]]
"""A row, and the mean density of its layers at first and at last, in percent."""


def _means(cell: Sequence[Run], key: str) -> list[float]:
    layers = zip(*(run.get("layers") for run in cell), strict=True)
    return [fmean(100 * layer[key] / layer["connections"] for layer in one) for one in layers]


def _moved(start: Sequence[float], end: Sequence[float]) -> bool:
    return any(abs(b - a) > MOVED * a for a, b in zip(start, end, strict=True))


def _starts(axis: Axes, found: Sequence[Layers], starts: dict[str, str]) -> None:
    """Draw each start once, however many rows share it; add to ``starts`` whose it is, and its marker."""
    groups: list[tuple[list[float], list[Row]]] = []
    for row, start, _ in found:
        same = [rows for first, rows in groups if len(first) == len(start) and not _moved(first, start)]
        if same:
            same[0].append(row)
        else:
            groups.append((start, [row]))
    for start, rows in groups:
        whose = _common(rows) if len(groups) > 1 else ""
        marker = starts.setdefault(whose, START_MARKERS[len(starts) % len(START_MARKERS)])
        axis.plot(range(1, len(start) + 1), start, color=NEUTRAL if whose else PALE, marker=marker, **START)


def _common(rows: Sequence[Row]) -> str:
    """Name what shares a start: what sets the rows apart from others, where all agree in it; else the rows."""
    suffixes = {row.suffix for row in rows}
    only = suffixes.pop() if len(suffixes) == 1 else ""
    return shown(only.strip(" ()")) if only else ", ".join(shown(row.name) for row in rows)


def _name_layers(axis: Axes, layers: Sequence[dict[str, Any]]) -> None:
    if len(layers) > MOST_NAMES:
        axis.set_xlabel("prunable layer, from input to output")
        axis.locator_params(axis="x", integer=True)
    else:
        axis.set_xticks(range(1, len(layers) + 1), [layer["name"] for layer in layers], rotation=90, fontsize=6)


def _handles(starts: dict[str, str], still: bool) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    first = {
        f"first step: {whose}" if whose else "first step": Line2D([], [], color=NEUTRAL, marker=marker, **START)
        for whose, marker in starts.items()
    }
    return first if still else first | {"end of training": Line2D([], [], color=NEUTRAL, marker="o", **END)}
