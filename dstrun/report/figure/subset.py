"""Accuracy against the number of samples that growth scores, by the distribution they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, aside, points, reference
from dstrun.report.figure.series import alike, first, in_order, panels
from dstrun.report.load import Run, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Final top-1 accuracy by the number of candidates that GSE draws, in multiples (gamma) of the active connections, "
    f"a line a distribution, {ERRORS}; RigL, which scores all connections, as a line with a band of its deviation."
)
GROWTH = ("grow", "subset")
GAMMA = "config.grow.gamma"


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity where gamma has two values or more; RigL where all else is alike."""
    subsets = panels(runs, lambda run: number(run.get(GAMMA)), ["grow.gamma"])
    pairs = {alike(first(row), GROWTH) for rows in subsets.values() for row in rows}
    alone = [run for run in runs if run.get("choices.grow") == "gradient" and alike(run, GROWTH) in pairs]
    rigl = panels(alone, lambda run: 0.0, [])
    found = {
        panel: (rigl.get(panel, []), rows, gammas)
        for panel, rows in subsets.items()
        if len(gammas := sorted(set().union(*(row.cells for row in rows)))) > 1
    }
    if not found:
        return None
    drawn = [row for references, rows, _ in found.values() for row in [*references, *rows]]
    names = in_order(drawn)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names))
    for axis, (panel, (references, rows, gammas)) in zip(axes, found.items(), strict=True):
        for row in references:
            reference(axis, row, accuracies(row.cells[0.0]))
        for place, row in enumerate(rows):
            shift = 2 ** (0.6 * aside(place, len(rows)))
            points(axis, row, [(shift * gamma, accuracies(row.cells[gamma])) for gamma in sorted(row.cells)])
        axis.set_xscale("log", base=2)
        axis.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
        axis.minorticks_off()
        axis.set_xlabel("candidates / active connections (gamma)")
        title(axis, panel.title)
    finish(figure, names, [len(cell) for row in drawn for cell in row.cells.values()])
    return figure
