"""How a method's numbers are drawn: means with their deviation and every seed, and lines of reference."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from dstrun.report.compare import Row
from dstrun.report.load import Run
from dstrun.report.style import NEUTRAL, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERRORS = "mean ± sample standard deviation over seeds, single seeds as small circles beside it"
SINGLES_INCHES = 0.05
DASHED = (0, (4, 1.5))
LONE = "+"
"""The mark of dense training where it is a point, for as a line of reference it has none."""


def accuracies(runs: Sequence[Run]) -> list[float]:
    """Return the final top-1 accuracy of each run, in percent."""
    return [run.top1 or 0.0 for run in runs]


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def points(axis: Axes, row: Row, found: Sequence[tuple[float, Sequence[float]]], **other: Any) -> None:
    """Draw a row's means, deviations and seeds: ``found`` has a place along x and the seeds' values there."""
    color, marker, line = row.look
    look: dict[str, Any] = {"color": color, "marker": marker or LONE, "linestyle": line, "label": row.name} | other
    for x, values in found:
        if len(values) > 1:
            singles(axis, x, values, look["color"])
    xs, means = [x for x, _ in found], [fmean(values) for _, values in found]
    errors = [deviation(values) for _, values in found] if any(len(values) > 1 for _, values in found) else None
    axis.errorbar(xs, means, errors, elinewidth=0.8, **look)


def singles(axis: Axes, x: float, values: Sequence[float], color: Any) -> None:
    """Draw every seed, a little to the right of ``x``, so that neither hides the other."""
    import matplotlib as mpl
    from matplotlib.transforms import ScaledTranslation

    (drawn,) = axis.plot(
        [x] * len(values), values, linestyle="none", marker="o", markersize=2, markeredgecolor=color,
        markerfacecolor=mpl.rcParams["axes.facecolor"], markeredgewidth=0.5, zorder=3,
    )  # fmt: skip
    # Moved after the axes have taken its place into account.
    drawn.set_transform(axis.transData + ScaledTranslation(SINGLES_INCHES, 0, axis.figure.dpi_scale_trans))


def reference(axis: Axes, row: Row, values: Sequence[float]) -> None:
    """Draw a row that does not depend on x: its mean, and a band of its standard deviation around it."""
    color, _, line = row.look
    mean, off = fmean(values), deviation(values)
    if off:
        axis.axhspan(mean - off, mean + off, color=color, alpha=0.12, linewidth=0, zorder=1)
    # Behind and pale; dashed, so that in greyscale it is no line of the grid.
    color = PALE if color == NEUTRAL else color
    axis.axhline(mean, color=color, linestyle=line if line != "-" else DASHED, label=row.name, zorder=1.2)


def aside(place: int, rows: int) -> float:
    """Return how far a row is moved along x, so that methods do not hide each other; places are 1 apart."""
    return (place - (rows - 1) / 2) * min(0.1, 0.8 / rows)
