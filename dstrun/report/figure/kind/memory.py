"""Accuracy against measured peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from dstrun.layer.backend import AUTO, is_dense
from dstrun.report.figure.canvas import finish, grid, spread, title
from dstrun.report.figure.labels import beside
from dstrun.report.figure.marks import ERRORS, LONE, accuracies, points
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_backend, in_order, seeds
from dstrun.report.load import Run, number
from dstrun.report.style import NEUTRAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    f"Final top-1 accuracy by the peak memory measured in training, {ERRORS}; a method's points are its sparsities. "
    "Hollow markers: sparsity simulated on dense storage (masked backend); filled: only active connections "
    "stored (sparse); half-filled: chosen per layer (auto)."
)

SHAPES = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "d", "8", "*")
"""Marks that are seen to be hollow; a method has the same on every backend."""
Fill = Literal["none", "left", "full"]


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset, device and precision; the backends of a method are rows of their own."""
    panels = by_backend(run for run in runs if number(run.get("memory.peak_bytes")))
    if not panels:
        return None
    plain = {row.name: row.name.removesuffix(f", {backend}") for rows in panels.values() for backend, row in rows}
    names = in_order(row for rows in panels.values() for _, row in rows)
    figure, axes = grid(len(panels), "top-1 accuracy (%)", rows=len(names), columns=2, height=2.5)
    shapes = _shapes([(plain[row.name], row.look.marker) for rows in panels.values() for _, row in rows])
    fills: dict[str, Fill] = {}
    for axis, (text, rows) in zip(axes, panels.items(), strict=True):
        xs = []
        for backend, row in rows:
            at = [(_megabytes(row.cells[s]), accuracies(row.cells[s])) for s in sorted(row.cells)]
            xs += [x for x, _ in at]
            mark = shapes[plain[row.name]] if backend else ""
            points(axis, row, at, fillstyle=_fill(backend), marker=mark or LONE)
            fills[backend or "dense"] = _fill(backend)
        spread(axis.xaxis, xs)
        title(axis, text, 2)
        axis.set_xlabel("measured peak memory (MB)")
    n = seeds(row for rows in panels.values() for _, row in rows)
    finish(figure, names, n, _handles(fills), legend=False)
    for axis, rows in zip(axes, panels.values(), strict=True):
        means = [
            [(_megabytes(row.cells[s]), fmean(accuracies(row.cells[s]))) for s in sorted(row.cells)] for _, row in rows
        ]
        named = [(*at[0], plain[row.name], row.look.color) for at, (_, row) in zip(means, rows, strict=True)]
        beside(axis, named, [point for at in means for point in at])
    return figure


def _handles(fills: dict[str, Any]) -> dict[str, Any]:
    """Return what hollow and full marks are, if there are several kinds."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": NEUTRAL, "marker": "o", "linestyle": "none"}
    kinds = {name: fill for name, fill in fills.items() if name != "dense"}
    return {f"{name} backend": Line2D([], [], **look, fillstyle=fill) for name, fill in sorted(kinds.items())}


PRESET = Preset(draw, CAPTION, "finished run with measured memory", place=40)


def _fill(backend: str) -> Literal["none", "left", "full"]:
    """Return how the marks of a backend are filled."""
    return "none" if is_dense(backend) else "left" if backend == AUTO else "full"


def _shapes(rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Choose a mark for each method, its own where it is seen to be hollow and no other method has it."""
    found: dict[str, str] = {}
    for text, marker in rows:
        free = [shape for shape in SHAPES if shape not in found.values()]
        found.setdefault(text, marker if marker in free else next(iter(free), SHAPES[0]))
    return found


def _megabytes(cell: Sequence[Run]) -> float:
    return fmean(run.get("memory.peak_bytes") for run in cell) / 1e6
