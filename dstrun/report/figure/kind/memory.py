"""Accuracy against measured peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from dstrun.layer.backend import AUTO, is_dense
from dstrun.report.figure.canvas import finish, grid, spread, title
from dstrun.report.figure.marks import ERRORS, accuracies, points
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_backend, in_order, seeds
from dstrun.report.load import Run, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    f"Final top-1 accuracy by the peak memory measured in training, {ERRORS}; a method's points are its sparsities. "
    "Hollow marks simulate sparsity on dense storage, as the masked backend does; full marks store the active "
    "connections alone, half marks choose by layer."
)


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and device; the backends of a method are rows of their own."""
    panels = by_backend(run for run in runs if number(run.get("memory.peak_bytes")))
    if not panels:
        return None
    names = in_order(row for rows in panels.values() for _, row in rows)
    figure, axes = grid(len(panels), "top-1 accuracy (%)", rows=len(names), height=2.3)
    for axis, (text, rows) in zip(axes, panels.items(), strict=True):
        xs = []
        for backend, row in rows:
            at = [(_megabytes(row.cells[s]), accuracies(row.cells[s])) for s in sorted(row.cells)]
            xs += [x for x, _ in at]
            points(axis, row, at, fillstyle=_fill(backend))
        spread(axis.xaxis, xs)
        title(axis, text)
        axis.set_xlabel("measured peak memory (MB)")
    finish(figure, names, seeds(row for rows in panels.values() for _, row in rows))
    return figure


PRESET = Preset(draw, CAPTION, "finished run with measured memory", place=40)


def _fill(backend: str) -> Literal["none", "left", "full"]:
    """Return how the marks of a backend are filled."""
    return "none" if is_dense(backend) else "left" if backend == AUTO else "full"


def _megabytes(cell: Sequence[Run]) -> float:
    return fmean(run.get("memory.peak_bytes") for run in cell) / 1e6
