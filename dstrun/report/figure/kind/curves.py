"""Accuracy by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from dstrun.report.compare import Row, blocks, unmet
from dstrun.report.figure.asked import asked, name
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.labels import ends, zoom
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import in_order, level, titled
from dstrun.report.load import Run, metrics, number
from dstrun.report.style import NEUTRAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = 12
"""Letters of names that fit at the end of a line where panels stand side by side."""
MOST_ZOOMED = 2
"""More panels leave no room for insets."""
BACK = 0.3
"""How much of a panel's width before the ends an inset shows."""
MOST_LINES = 10
"""With more seeds than these, single lines hide each other, and a band from lowest to highest stands for them."""
CAPTION = (
    "Top-1 accuracy by epoch, mean over seeds; thin lines are single seeds, or a band from the lowest to the highest "
    f"where there are more than {MOST_LINES}. The axis begins at what was reached after a tenth of the epochs."
)


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a panel per model, dataset and sparsity; dense training is in every one."""
    panels, cells = [], []
    for block in blocks(runs):
        levels = [s for s in block.sparsities if s > 0] or block.sparsities
        for sparsity in levels:
            # Dense training is the reference of every panel.
            drawn = [(row, lines) for row in block.rows for at in sorted({0.0, sparsity}) if (lines := _lines(row, at))]
            if drawn:
                panels.append((titled(block, level(sparsity) if sparsity else ""), drawn))
                cells += [(row.name, row.cells.get(sparsity, [])) for row, _ in drawn]
    if not panels:
        return None
    names = in_order(row for _, drawn in panels for row, _ in drawn)
    figure, axes = grid(len(panels), "top-1 accuracy (%)", rows=len(names), height=2.3)
    last = []
    for axis, (text, drawn) in zip(axes, panels, strict=True):
        means = [_curve(axis, row, lines, place / len(drawn)) for place, (row, lines) in enumerate(drawn)]
        settled = [value for _, mean in means for value in mean[len(mean) // 10 :]]
        if settled:
            # The climb from chance would leave the differences no room: it runs out below.
            axis.set_ylim(bottom=min(settled) - 0.05 * (max(settled) - min(settled)) - 0.5)
        title(axis, text)
        axis.set_xlabel("epoch")
        axis.locator_params(axis="x", integer=True)
        last.append([(epochs[-1], mean[-1]) for epochs, mean in means if mean])
    beside = len(panels) == 1 or max(len(name(text)) for text in names) <= SHORT
    finish(
        figure, names, [len(lines) for _, drawn in panels for _, lines in drawn], unmet=unmet(cells), legend=not beside
    )
    if asked().ylim is None:
        for axis, (_, drawn), points in zip(axes, panels, last, strict=True):
            if len(panels) <= MOST_ZOOMED:
                zoom(axis, points, lambda inset, drawn=drawn: _all(inset, drawn), BACK)
    if beside:
        for axis, (_, drawn), points in zip(axes, panels, last, strict=True):
            rows = [row for row, lines in drawn if set.intersection(*map(set, lines))]
            ends(axis, [(*point, row.name, row.look.color) for point, row in zip(points, rows, strict=True)])
    return figure


def _all(inset: Axes, drawn: Sequence[tuple[Row, list[dict[int, float]]]]) -> None:
    """Draw the means alone, into an inset."""
    for place, (row, lines) in enumerate(drawn):
        _curve(inset, row, lines, place / len(drawn), singles=False)


PRESET = Preset(draw, CAPTION, "finished run with metrics.csv", place=10)


def _curve(
    axis: Axes, row: Row, lines: Sequence[dict[int, float]], shift: float, *, singles: bool = True
) -> tuple[list[int], list[float]]:
    """Draw one row's seeds and their mean; return it with its epochs. ``shift`` in [0, 1) parts the marks of rows."""
    from matplotlib.collections import LineCollection

    color, marker, line = row.look
    epochs = sorted(set.intersection(*map(set, lines)))
    columns = [[seed[epoch] for seed in lines] for epoch in epochs]
    if len(lines) > MOST_LINES and singles:
        axis.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.2, linewidth=0)
    elif len(lines) > 1 and singles:
        # One artist for all of them: thousands of lines would take longer to draw than their files to read.
        single = [list(seed.items()) for seed in lines]
        axis.add_collection(LineCollection(single, colors=color, linewidths=0.4, alpha=0.3))
    mean = [fmean(column) for column in columns]
    step = max(1, len(epochs) // 6)
    axis.plot(
        epochs, mean, color=color, marker=marker, linestyle=line, label=row.name,
        markevery=(int(shift * step), step),
        zorder=1.9 if color == NEUTRAL else 2,
    )  # fmt: skip
    return epochs, mean


def _lines(row: Row, at: float) -> list[dict[int, float]]:
    """Read the accuracy by epoch of each seed of a cell that has any."""
    seeds = [
        {
            epoch["epoch"]: epoch["top1"]
            for epoch in metrics(run, ("epoch", "top1"))
            if number(epoch.get("top1")) is not None
        }
        for run in row.cells.get(at, [])
    ]
    return [seed for seed in seeds if seed]
