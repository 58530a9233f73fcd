"""Accuracy against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from dstrun.allocation.budget import percent
from dstrun.report.compare import blocks
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, aside, points, reference
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import in_order, seeds, ticks, titled
from dstrun.report.load import EMERGES, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    f"Final top-1 accuracy by sparsity, {ERRORS}; the horizontal axis is logarithmic in density, 1 - sparsity, and "
    "methods of one sparsity are side by side; dense training as a pale line with a band of its deviation. Runs "
    "without a target sparsity are on the right, each labelled with the sparsity it reached, as is a point whose "
    "sparsity differs from its target."
)
FACTOR = 2.0
"""Between two places along the axis, as far as rows are moved beside each other."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model and dataset."""
    found = blocks(runs)
    if not found:
        return None
    names = in_order(row for block in found for row in block.rows)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names))
    for axis, block in zip(axes, found, strict=True):
        levels = [s for s in block.sparsities if s > 0]
        at_density = densities(levels)
        axis.set_xscale("log")
        axis.set_xlim(max(at_density, default=1) * FACTOR**0.5, min(at_density, default=1) / FACTOR**0.5)
        sparse = [row for row in block.rows if any(row.cells.get(s) for s in levels)]
        for row in block.rows:
            if row.cells.get(0.0):
                reference(axis, row, accuracies(row.cells[0.0]))
        for place, row in enumerate(sparse):
            shift = FACTOR ** -aside(place, len(sparse))
            at = {shift * x: row.cells[s] for x, s in zip(at_density, levels, strict=True) if row.cells.get(s)}
            points(axis, row, [(x, accuracies(cell)) for x, cell in at.items()])
            for x, cell in at.items():
                emerges, real = cell[0].sparsity == EMERGES, fmean(run.realised for run in cell)
                if emerges or not all(run.met for run in cell):
                    reached = f"{100 * real:.1f}" if emerges else percent(real)
                    where = (x, fmean(accuracies(cell)))
                    axis.annotate(reached, where, (4, 0), textcoords="offset points", va="center", color=row.look.color)
        title(axis, titled(block))
        axis.set_xticks(at_density, ticks(levels))
        axis.minorticks_off()
        axis.set_xlabel("sparsity (%), log scale of density" if len(levels) > 1 else "sparsity (%)")
        axis.grid(visible=False, axis="x")
    finish(figure, names, seeds(row for block in found for row in block.rows))
    return figure


def densities(levels: Sequence[float]) -> list[float]:
    """Place sparsities by their density; behind the last the one that training found."""
    known = [1 - level for level in levels if level != EMERGES]
    return known + [min(known, default=1) / FACTOR] * (len(known) < len(levels))


PRESET = Preset(draw, CAPTION, place=20)
