"""Density by layer, at the start and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Row, unmet
from dstrun.report.figure.canvas import finish, grid, spread, title
from dstrun.report.figure.marks import aside
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_sparsity, in_order
from dstrun.report.load import Run
from dstrun.report.style import NEUTRAL, line, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Density of every prunable layer, from input to output, mean over seeds: hollow marks on dotted lines at the first "
    "step, full marks at the end of training."
)
MOST_NAMES = 20
"""More layers than these are numbered."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity, of the runs whose records have the field ``layers``."""
    panels = list(by_sparsity(run for run in runs if run.get("layers")))
    if not panels:
        return None
    names = in_order(row for _, rows in panels for row, _ in rows)
    figure, axes = grid(len(panels), "density (%)", rows=len(names), columns=2, height=2.3)
    for axis, (text, rows) in zip(axes, panels, strict=True):
        densities = []
        for place, (row, cell) in enumerate(rows):
            densities += _layers(axis, row, cell, aside(place, len(rows)))
        spread(axis.yaxis, densities)
        _name_layers(axis, rows[0][1][0].get("layers"))
        title(axis, text, 2)
    cells = [(row.name, cell) for _, rows in panels for row, cell in rows]
    finish(figure, names, [len(cell) for _, cell in cells], _handles(), unmet(cells))
    return figure


PRESET = Preset(draw, CAPTION, "finished sparse run with layers in its record", place=90)


def _layers(axis: Axes, row: Row, cell: Sequence[Run], shift: float) -> list[float]:
    """Draw the mean densities of a row's layers, moved along x, and return them, in percent."""
    color, marker = style(row.label)
    drawn = []
    ends: dict[str, Any] = {"linestyle": line(row.label, row.variant), "label": row.name}
    for key, look in (("initial", START), ("active", END | ends)):
        layers = zip(*(run.get("layers") for run in cell), strict=True)
        means = [fmean(100 * layer[key] / layer["connections"] for layer in one) for one in layers]
        axis.plot([i + 1 + shift for i in range(len(means))], means, color=color, marker=marker, **look)
        drawn += means
    return drawn


START: dict[str, Any] = {
    "linestyle": ":", "fillstyle": "none", "linewidth": 0.7, "markersize": 4.5, "markeredgewidth": 0.7,
}  # fmt: skip
END: dict[str, Any] = {"linewidth": 0.7}


def _name_layers(axis: Axes, layers: Sequence[dict[str, Any]]) -> None:
    if len(layers) > MOST_NAMES:
        axis.set_xlabel("prunable layer, from input to output")
        axis.locator_params(axis="x", integer=True)
    else:
        axis.set_xticks(range(1, len(layers) + 1), [layer["name"] for layer in layers], rotation=90, fontsize=6)


def _handles() -> dict[str, Any]:
    from matplotlib.lines import Line2D

    return {
        "first step": Line2D([], [], color=NEUTRAL, marker="o", **START),
        "end of training": Line2D([], [], color=NEUTRAL, marker="o", **END),
    }
