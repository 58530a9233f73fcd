"""Accuracy against the FLOPs of training."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Block, Row, blocks
from dstrun.report.figure.asked import asked
from dstrun.report.figure.canvas import finish, grid, spread, title
from dstrun.report.figure.labels import zoom
from dstrun.report.figure.marks import ERRORS, LONE, accuracies, points
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import in_order, seeds, titled
from dstrun.report.load import Run, number
from dstrun.report.style import PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    f"Final top-1 accuracy by the FLOPs of training that the method claims, {ERRORS}; a method's points are its "
    "sparsities. The stepped line is the Pareto front: no point on its left is as accurate."
)
FRONT = "Pareto front"


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model and dataset; relative to dense where all of a panel's runs mean the same by it."""
    found = blocks([run for run in runs if run.done and number(run.get("flops.train"))])
    if not found:
        return None
    names = in_order(row for block in found for row in block.rows)
    figure, axes = grid(len(found), "top-1 accuracy (%)", rows=len(names), height=2.3)
    panels: list[list[tuple[Row, Any]]] = []
    for axis, block in zip(axes, found, strict=True):
        key = "flops.train_x_dense" if len(_dense_costs(block)) == 1 else "flops.train"
        cells, drawn = [], []
        for row in block.rows:
            at = [(_cost(row, s, key), accuracies(row.cells[s])) for s in sorted(row.cells)]
            points(axis, row, at)
            cells += at
            drawn.append((row, at))
        _front(axis, [(x, fmean(values)) for x, values in cells])
        title(axis, titled(block))
        spread(axis.xaxis, [x for x, _ in cells])
        axis.set_xlabel("training FLOPs" + (" (x dense)" if key != "flops.train" else ""))
        panels.append(drawn)
    finish(figure, [*names, FRONT], seeds(row for block in found for row in block.rows))
    for axis, drawn in zip(axes, panels, strict=True):
        means = [(x, fmean(values)) for _, at in drawn for x, values in at]
        if len(found) == 1 and asked().ylim is None:
            zoom(axis, means, lambda inset, drawn=drawn: _means(inset, drawn))
    return figure


def _means(inset: Axes, drawn: Sequence[tuple[Row, Any]]) -> None:
    """Draw the means alone, into an inset."""
    for row, at in drawn:
        color, marker, line = row.look
        xs, ys = [x for x, _ in at], [fmean(values) for _, values in at]
        inset.plot(xs, ys, color=color, marker=marker or LONE, linestyle=line)


PRESET = Preset(draw, CAPTION, place=30)


def _dense_costs(block: Block) -> set[str]:
    """Return the FLOPs of dense training that the runs of a block are relative to."""
    runs = [run for row in block.rows for cell in row.cells.values() for run in cell]
    ratios = [number(run.get("flops.train_x_dense")) for run in runs]
    return {f"{run.get('flops.train') / x:.4g}" if x else "" for run, x in zip(runs, ratios, strict=True)}


def _cost(row: Row, sparsity: float, key: str) -> float:
    return fmean(run.get(key) for run in row.cells[sparsity])


def _front(axis: Axes, cells: Sequence[tuple[float, float]]) -> None:
    """Draw the best accuracy at every cost so far, to the costliest cell."""
    front: list[tuple[float, float]] = []
    for x, mean in sorted(cells, key=lambda cell: (cell[0], -cell[1])):
        if not front or mean > front[-1][1]:
            front.append((x, mean))
    front.append((max(x for x, _ in cells), front[-1][1]))
    axis.step(*zip(*front, strict=True), where="post", color=PALE, linewidth=1.2, label=FRONT, zorder=1.1)
