"""Accuracy against the number of samples that growth scores, by the distribution they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.report.compare import unmet
from dstrun.report.fields import Field
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, aside, points, reference
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import SPARSITY, but_growth, in_order, panels, places, seeds
from dstrun.report.load import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Final top-1 accuracy by the number of candidates that GSE draws, in multiples (gamma) of the active connections, "
    f"one line per distribution, {ERRORS}; RigL, which scores all connections, as a line with a band of its deviation."
)
GAMMA = Field("gamma", "config.grow.gamma")


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity where gamma has two values or more; RigL where all else is alike."""
    subsets = {panel: rows for panel, rows in panels(runs, [GAMMA]).items() if len(places(rows)) > 1}
    if not subsets:
        return None
    pairs = {but_growth(run) for rows in subsets.values() for row in rows for run in row.runs}
    rigl = [run for run in runs if run.get("choices.grow") == "gradient" and but_growth(run) in pairs]
    references = panels(rigl, [SPARSITY])
    found = {panel: (references.get(panel, []), rows) for panel, rows in subsets.items()}
    drawn = [row for pair in found.values() for rows in pair for row in rows]
    names = in_order(drawn)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names))
    for axis, (panel, (scored_all, rows)) in zip(axes, found.items(), strict=True):
        for row in scored_all:
            reference(axis, row, accuracies(row.runs))
        for place, row in enumerate(rows):
            shift = 2 ** (0.6 * aside(place, len(rows)))
            points(axis, row, [(shift * gamma, accuracies(row.cells[gamma])) for gamma in sorted(row.cells)])
        gammas = places(rows)
        axis.set_xscale("log", base=2)
        axis.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
        axis.minorticks_off()
        axis.set_xlabel("candidates / active connections (gamma)")
        title(axis, panel.title)
    finish(figure, names, seeds(drawn), unmet=unmet((row.name, row.runs) for row in drawn))
    return figure


PRESET = Preset(draw, CAPTION, "runs of GSE that differ in grow.gamma alone", place=50)
