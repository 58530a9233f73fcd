"""The memory of training by part: a stacked bar a method, sparsity and backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.report.figure.asked import name
from dstrun.report.figure.canvas import PAGE_INCHES, blank, finish, folded, title
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.split import MEANING, PARTS, Split, looks, splits
from dstrun.report.load import Run
from dstrun.report.style import NEUTRAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = f"Memory of training by part: {MEANING}. The line across a bar is the measured peak."
PEAK = "measured peak"
LABEL_INCHES = 2.8
"""Width of the names beside the bars."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a bar a method, sparsity and backend; a panel per model, dataset and device."""
    found = splits(runs)
    if not found:
        return None
    heights = [0.95 + len(bars) * (0.05 + 0.12 * _lines(bars)) for bars in found.values()]
    figure = blank(PAGE_INCHES, sum(heights))
    lines = figure.add_gridspec(len(found), 1, height_ratios=heights)
    for place, (text, bars) in enumerate(found.items()):
        axis = figure.add_subplot(lines[place])
        _stack(axis, bars)
        title(axis, text, 1)
    finish(figure, [*PARTS, PEAK], [bar.seeds for bars in found.values() for bar in bars])
    return figure


PRESET = Preset(draw, CAPTION, "finished run with measured memory", place=110)


def _label(bar: Split) -> str:
    """Return the name of a bar, folded so that most of the width is left for the bar."""
    return folded(name(bar.name), LABEL_INCHES)


def _lines(bars: Sequence[Split]) -> int:
    """Count the lines of the longest name."""
    return max(_label(bar).count("\n") for bar in bars) + 1


def _stack(axis: Axes, bars: Sequence[Split]) -> None:
    """Draw the bars of a panel, the first on top, and the peak of each across it."""
    import matplotlib as mpl
    from matplotlib.patheffects import withStroke

    ends = [0.0] * len(bars)
    for part, look in looks().items():
        sizes = [bar.parts[part] / 1e6 for bar in bars]
        if any(sizes):
            axis.barh(range(len(bars)), sizes, 0.75, ends, label=part, **look)
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]
    peaks = [bar.peak / 1e6 for bar in bars]
    edge = withStroke(linewidth=2.5, foreground=mpl.rcParams["axes.facecolor"])
    axis.plot(
        peaks, range(len(bars)), linestyle="none", marker="|", markersize=11, color=NEUTRAL, label=PEAK,
        path_effects=[edge],
    )  # fmt: skip
    axis.set_yticks(range(len(bars)), [_label(bar) for bar in bars])
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, 1.02 * max([*ends, *peaks]))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("memory (MB)")
