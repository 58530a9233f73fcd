"""Accuracy by allocation: uniform against Erdos-Renyi."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Row, unmet
from dstrun.report.fields import Field
from dstrun.report.figure.asked import name as shown
from dstrun.report.figure.canvas import finish, folded, grid, title
from dstrun.report.figure.marks import ERRORS, accuracies, deviation, singles
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import dress, panels, seeds
from dstrun.report.load import Run
from dstrun.report.style import HATCHES, NEUTRAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Final top-1 accuracy by how connections are allocated to layers, one group of bars per method, "
    f"{ERRORS}. The axis does not start at 0 where the lowest value is more than half of the highest."
)
ALLOCATION = Field("allocation", "choices.allocation")
WIDTH = 0.8
"""Of a group of bars; the next group begins at 1."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity with the methods that were trained with several allocations."""
    found = {}
    for panel, rows in panels(runs, [ALLOCATION]).items():
        if several := [row for row in rows if len(row.cells) > 1]:
            found[panel] = several
    if not found:
        return None
    names = sorted({name for rows in found.values() for row in rows for name in row.cells}, key=_order)
    dress(row for rows in found.values() for row in rows)
    # Bars from 0 would leave small differences no room.
    cut = all(min(_values(rows)) > max(_values(rows)) / 2 for rows in found.values())
    figure, axes = grid(len(found), "top-1 accuracy (%)")
    for axis, (panel, rows) in zip(axes, found.items(), strict=True):
        for place, row in enumerate(rows):
            _bars(axis, row, place, names)
        values = _values(rows)
        room = 0.1 * (max(values) - min(values)) + 0.5
        axis.set_ylim(max(0, min(values) - 3 * room) if cut else 0, max(values) + room)
        axis.set_xticks(
            range(len(rows)),
            [folded(shown(row.name), figure.get_figwidth() / min(3, len(found)) / (len(rows) + 1)) for row in rows],
        )
        axis.grid(visible=False, axis="x")
        title(axis, panel.title)
    drawn = [row for rows in found.values() for row in rows]
    apart = unmet((f"{row.name} ({name})", cell) for row in drawn for name, cell in row.cells.items())
    finish(figure, [], seeds(drawn), _handles(names), apart)
    return figure


PRESET = Preset(draw, CAPTION, "runs that differ in their allocation alone", place=70)


def _values(rows: Sequence[Row]) -> list[float]:
    return [value for row in rows for cell in row.cells.values() for value in accuracies(cell)]


def _order(name: str) -> tuple[bool, str]:
    """Sort key: uniform first, as in the literature."""
    return not name.startswith("uniform"), name


def _bars(axis: Axes, row: Row, place: int, names: Sequence[str]) -> None:
    """Draw a row's bars side by side in its color, told apart by their hatching."""
    import matplotlib as mpl

    width = WIDTH / len(names)
    color, face = row.look.color, mpl.rcParams["axes.facecolor"]
    for name, cell in row.cells.items():
        x = place + (names.index(name) - (len(names) - 1) / 2) * width
        values = accuracies(cell)
        axis.bar(
            x, fmean(values), 0.9 * width, yerr=deviation(values), color=color, edgecolor=face, linewidth=0,
            hatch=HATCHES[names.index(name) % len(HATCHES)], error_kw={"elinewidth": 0.8, "capsize": 2},
        )  # fmt: skip
        if len(values) > 1:
            singles(axis, x, values, NEUTRAL)


def _handles(names: Sequence[str]) -> dict[str, Any]:
    import matplotlib as mpl
    from matplotlib.patches import Patch

    look = {"facecolor": NEUTRAL, "edgecolor": mpl.rcParams["axes.facecolor"], "linewidth": 0}
    return {name: Patch(hatch=HATCHES[i % len(HATCHES)], **look) for i, name in enumerate(names)}
