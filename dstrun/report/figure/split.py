"""What the memory of training is made of: stacked bars, and pies as the literature has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from dstrun.report.compare import really
from dstrun.report.figure.canvas import PAGE_INCHES, blank, finish, grid, title
from dstrun.report.figure.series import by_backend, level
from dstrun.report.format import in_bytes
from dstrun.report.load import Run, number
from dstrun.report.style import NEUTRAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "model": ("#0072b2", ""),
    "optimizer": ("#ffa90e", "////"),
    "activation": ("#94a4a2", ""),
    "index": ("#bd1f01", "...."),
    "method": ("#92dadd", ""),
    "transient": ("#832db6", "\\\\\\\\"),
}
"""Dark and light in turns, so that neighbors differ in greyscale too."""
MEANING = (
    "model (parameters and buffers), optimizer (gradients and state), activation (saved for backward), index "
    "(positions and masks), method (what it keeps between steps), transient (the rest of the peak); mean over seeds"
)
BARS = f"Memory of training by part: {MEANING}. The line across a bar is the measured peak."
PIES = f"Memory of training by part: {MEANING}. Below each pie is its measured peak."
PEAK = "measured peak"
LEAST = 0.06
"""Of a pie: smaller pieces have no room for their share."""


class Split(NamedTuple):
    """The memory of one row at one sparsity: means over seeds, in bytes."""

    name: str
    parts: dict[str, float]
    peak: float
    seeds: int


def draw_bars(runs: Sequence[Run]) -> Figure | None:
    """Draw a bar a method, sparsity and backend; a panel per model, dataset and device."""
    found = splits(runs)
    if not found:
        return None
    heights = [0.95 + 0.17 * len(bars) for bars in found.values()]
    figure = blank(PAGE_INCHES, sum(heights))
    lines = figure.add_gridspec(len(found), 1, height_ratios=heights)
    for place, (text, bars) in enumerate(found.items()):
        axis = figure.add_subplot(lines[place])
        _stack(axis, bars)
        title(axis, text, 1)
    finish(figure, [*PARTS, PEAK], [bar.seeds for bars in found.values() for bar in bars])
    return figure


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
    axis.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, 1.02 * max([*ends, *peaks]))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("memory (MB)")


def draw_pies(runs: Sequence[Run]) -> Figure | None:
    """Draw a pie a method, sparsity and backend, of equal sizes."""
    found = [(text, bar) for text, bars in splits(runs).items() for bar in bars]
    if not found:
        return None
    figure, axes = grid(len(found), columns=4, height=1.75)
    alone = len({text for text, _ in found}) == 1
    faces = looks()
    for axis, (text, bar) in zip(axes, found, strict=True):
        pieces = {part: size for part, size in bar.parts.items() if size > 0}
        total = sum(pieces.values())
        wedges, _ = axis.pie(
            list(pieces.values()), startangle=90, counterclock=False, labeldistance=1.12,
            labels=[f"{100 * size / total:.0f}%" if size > LEAST * total else "" for size in pieces.values()],
            textprops={"fontsize": 6.5},
        )  # fmt: skip
        for part, wedge in zip(pieces, wedges, strict=True):
            wedge.set(**faces[part], label=part)
        axis.set_xlabel(in_bytes(bar.peak))
        title(axis, bar.name if alone else f"{text}: {bar.name}", 4)
    finish(figure, list(PARTS), [bar.seeds for _, bar in found])
    return figure


def splits(runs: Iterable[Run]) -> dict[str, list[Split]]:
    """Split the memory of finished runs by part: rows at their sparsities, by the title of their panel."""
    measured = [run for run in runs if number(run.get("memory.peak_bytes")) and number(run.get("memory.model_bytes"))]
    return {
        text: [_split(row.name, s, row.cells[s]) for _, row in rows for s in sorted(row.cells)]
        for text, rows in by_backend(measured).items()
    }


def _split(name: str, sparsity: float, cell: Sequence[Run]) -> Split:
    parts = {part: fmean(_bytes(run, part) for run in cell) for part in PARTS}
    peak = fmean(run.get("memory.peak_bytes") for run in cell)
    return Split(f"{name}, {level(sparsity)}{really(cell)}" if sparsity else name, parts, peak, len(cell))


def _bytes(run: Run, part: str) -> float:
    """Return what a part holds when most is held; records of older versions have the most that it ever holds."""
    phases = run.get("memory.at_peak")
    if not isinstance(phases, dict) or not phases:
        return number(run.get(f"memory.{part}_bytes")) or 0
    fullest = max(phases.values(), key=lambda sizes: sum(sizes.values()))
    return fullest.get(part, 0)


def looks() -> dict[str, dict[str, Any]]:
    """Return the color and hatching of every part; hatches and borders are of the color of the paper."""
    import matplotlib as mpl

    paper = mpl.rcParams["axes.facecolor"]
    return {
        part: {"facecolor": color, "hatch": hatch, "edgecolor": paper, "linewidth": 0.4}
        for part, (color, hatch) in PARTS.items()
    }
