"""Accuracy of wider networks that have as many active connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, aside, points, reference
from dstrun.report.figure.series import in_order, panels
from dstrun.report.load import Run, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Final top-1 accuracy by width, all networks of a panel having as many active connections as its title says (to "
    f"1 %), {ERRORS}; the dense network of width 1 as a line with a band of its deviation."
)
SAME = 1.01
"""Counts of active connections within this factor are one: a sparsity has only so many digits."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and count of active connections that several widths have."""
    wide = [run for run in runs if run.done and width(run) and active(run)]
    counts = _names(wide)
    dense = [run for run in wide if run.sparsity == 0 and run.get("label") == "dense" and width(run) == 1]
    sparse = [run for run in wide if run.sparsity > 0]
    references = panels(dense, width, ["model.width"], lambda run: counts[active(run)])
    found: dict = {}
    for panel, rows in panels(sparse, width, ["model.width"], lambda run: counts[active(run)]).items():
        widths = set().union(*(row.cells for row in rows)) | ({1.0} if panel in references else set())
        if len(widths) > 1:
            found[panel] = (references.get(panel, []), rows, sorted(widths))
    if not found:
        return None
    drawn = [row for lines, rows, _ in found.values() for row in [*lines, *rows]]
    names = in_order(drawn)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names))
    for axis, (panel, (lines, rows, widths)) in zip(axes, found.items(), strict=True):
        for row in lines:
            reference(axis, row, accuracies(row.cells[1.0]))
        for place, row in enumerate(rows):
            points(axis, row, [(w + aside(place, len(rows)), accuracies(row.cells[w])) for w in sorted(row.cells)])
        axis.set_xticks(widths, [f"{w:g}" for w in widths])
        axis.set_xlim(widths[0] - 0.3, widths[-1] + 0.3)
        axis.set_xlabel("width")
        title(axis, panel.title)
    finish(figure, names, [len(cell) for row in drawn for cell in row.cells.values()])
    return figure


def width(run: Run) -> float | None:
    """Give the factor of a run's layers' widths."""
    return number(run.get("config.model.width"))


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
