"""Accuracy of wider networks that have as many active connections."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING

from dstrun.report.compare import Row
from dstrun.report.fields import Field
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, aside, points, reference
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import SPARSITY, Panel, in_order, panels, seeds
from dstrun.report.load import Run, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Final top-1 accuracy by width, all networks of a panel with as many active connections as its title "
    f"gives (within 1 %), {ERRORS}; the dense network of width 1 as a line with a band of its deviation."
)
WIDTH = Field("width", "config.model.width")
SAME = 1.01
"""Counts of active connections within this factor are one: a sparsity has only so many digits."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and count of active connections that several widths have."""
    wide = [run for run in runs if run.done and number(WIDTH.of(run)) and active(run)]
    counts = _names(wide)
    found: dict[Panel, tuple[list[Row], list[Row], list[float]]] = {}
    for panel, rows in panels(wide, [WIDTH, SPARSITY], lambda run: counts[active(run)]).items():
        dense = [row for row in rows if row.label == "dense" and (1, 0) in row.cells]
        sparse = [row for row in rows if any(sparsity for _, sparsity in row.cells)]
        widths = sorted({width for row in [*dense, *sparse] for width, _ in row.cells})
        if sparse and len(widths) > 1:
            found[panel] = dense, sparse, widths
    if not found:
        return None
    drawn = [row for dense, sparse, _ in found.values() for row in [*dense, *sparse]]
    names = in_order(drawn)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names))
    for axis, (panel, (dense, sparse, widths)) in zip(axes, found.items(), strict=True):
        for row in dense:
            reference(axis, row, accuracies(row.cells[1, 0]))
        places = {width: log2(width) for width in widths}
        gap = min(b - a for a, b in pairwise(places.values()))
        for place, row in enumerate(sparse):
            off = gap * aside(place, len(sparse))
            cells = sorted(row.cells.items())
            points(axis, row, [(places[width] + off, accuracies(cell)) for (width, _), cell in cells])
        axis.set_xticks([*places.values()], [f"{width:g}" for width in widths])
        margin = 0.08 * (places[widths[-1]] - places[widths[0]])
        axis.set_xlim(places[widths[0]] - margin, places[widths[-1]] + margin)
        axis.set_xlabel("width, log scale")
        title(axis, panel.title)
    finish(figure, names, seeds(drawn))
    return figure


PRESET = Preset(draw, CAPTION, "runs of several widths with as many active connections", place=80)


def active(run: Run) -> int:
    """Count the active connections a run ended with; 0 where its record does not know."""
    return round((number(run.get("parameters.prunable")) or 0) * (1 - run.realised))


def _names(runs: Sequence[Run]) -> dict[int, str]:
    """Name every count of active connections as the smallest that is the same."""
    names: dict[int, str] = {}
    least = 0
    for count in sorted({active(run) for run in runs}):
        if count > SAME * least:
            least = count
        names[count] = f"{least:,} connections"
    return names
