"""Figures of a paper from finished runs: every seed visible, one color and marker per method everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from dstrun.option import ConfigError, nearest
from dstrun.report.compare import Block, Row, blocks
from dstrun.report.load import EMERGES, Run, metrics, number
from dstrun.report.style import SHEET, line, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What would make two drawings of the same runs differ.
SUFFIXES = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8


def curves(runs: Sequence[Run], out: Path | str) -> Path | None:
    """Draw top-1 accuracy against epoch, a panel per model, dataset and sparsity; thin lines are single seeds.

    Dense training is in every panel. The axis begins at what was reached after a tenth of the epochs.

    Returns:
        The file written, or None where no finished run has metrics.

    Raises:
        ConfigError: ``out`` is no png, pdf or svg, or cannot be written.
    """
    return save(lambda: draw_curves(runs), Path(out))


def sparsity(runs: Sequence[Run], out: Path | str) -> Path | None:
    """Draw final top-1 accuracy against sparsity, a panel per model and dataset; small marks are single seeds.

    Runs whose sparsity training found stand at the right, each with the sparsity it reached.

    Returns:
        The file written, or None where no run is finished.

    Raises:
        ConfigError: ``out`` is no png, pdf or svg, or cannot be written.
    """
    return save(lambda: draw_sparsity(runs), Path(out))


def save(draw: Callable[[], Figure | None], out: Path) -> Path | None:
    """Draw in the project's style and write the file; None where there was nothing to draw.

    Raises:
        ConfigError: ``out`` is no png, pdf or svg, or cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise ConfigError(f"--out {out} must end in one of {allowed}{nearest(out.suffix, SUFFIXES)}")
    with sheet():
        figure = draw()
        if figure is None:
            return None
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(out, metadata=SUFFIXES[out.suffix.lower()])
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
    return out


@contextmanager
def sheet() -> Iterator[None]:
    """Draw in the project's style, whatever the user's own settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(mpl.rc_params_from_file(SHEET, use_default_template=False))
        yield


def draw_curves(runs: Sequence[Run]) -> Figure | None:
    """Draw ``curves`` on a figure; None where there is nothing to draw. To be called within ``sheet``."""
    panels = []
    for block in blocks(runs):
        levels = [s for s in block.sparsities if s > 0] or block.sparsities
        for level in levels:
            # Dense training is the reference of every panel.
            drawn = [(row, lines) for row in block.rows for at in sorted({0.0, level}) if (lines := _lines(row, at))]
            if drawn:
                panels.append((block, level, drawn))
    if not panels:
        return None
    shown = {row.name: row for _, _, drawn in panels for row, _ in drawn}
    figure, axes = _grid(len(panels), shown)
    for axis, (block, level, drawn) in zip(axes, panels, strict=True):
        settled = []
        for place, (row, lines) in enumerate(drawn):
            color, marker = style(row.label)
            for seed in lines if len(lines) > 1 else []:
                axis.plot(list(seed), list(seed.values()), color=color, linewidth=0.5, alpha=0.35)
            epochs = sorted(set.intersection(*map(set, lines)))
            mean = [fmean(seed[epoch] for seed in lines) for epoch in epochs]
            settled += mean[len(mean) // 10 :]
            step = max(1, len(epochs) // 6)
            axis.plot(
                epochs, mean, color=color, marker=marker, linestyle=line(row.label, row.variant), label=row.name,
                markevery=(place * step // len(drawn), step),
            )  # fmt: skip
        if settled:
            # The climb from chance would leave the differences no room: it runs out below.
            axis.set_ylim(bottom=min(settled) - 0.05 * (max(settled) - min(settled)) - 0.5)
        axis.set_title(_title(block, level))
        axis.set_xlabel("epoch")
        axis.locator_params(axis="x", integer=True)
    _legend(figure, axes, shown)
    return figure


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


def draw_sparsity(runs: Sequence[Run]) -> Figure | None:
    """Draw ``sparsity`` on a figure; None where there is nothing to draw. To be called within ``sheet``."""
    found = blocks(runs)
    if not found:
        return None
    shown = {row.name: row for block in found for row in block.rows}
    figure, axes = _grid(len(found), shown)
    for axis, block in zip(axes, found, strict=True):
        levels = [s for s in block.sparsities if s > 0]
        sparse = [row for row in block.rows if any(row.cells.get(s) for s in levels)]
        for row in block.rows:
            if row.cells.get(0.0):
                mean = fmean(run.top1 or 0.0 for run in row.cells[0.0])
                color, _ = style(row.label)
                axis.axhline(mean, color=color, linestyle=line(row.label, row.variant), label=row.name)
        for place, row in enumerate(sparse):
            _errorbars(axis, row, levels, place - (len(sparse) - 1) / 2, len(sparse))
        axis.set_title(_title(block))
        axis.set_xticks(range(len(levels)), ["emerges" if s == EMERGES else f"{100 * s:g}" for s in levels])
        axis.set_xlim(-0.5, max(len(levels), 1) - 0.5)
        axis.set_xlabel("sparsity (%)")
        axis.grid(visible=False, axis="x")
    _legend(figure, axes, shown)
    return figure


def _errorbars(axis: Axes, row: Row, levels: Sequence[float], place: float, rows: int) -> None:
    """Draw one row's means, deviations and seeds, moved aside so that methods do not hide each other."""
    color, marker = style(row.label)
    at, means, deviations = [], [], []
    for i, level in enumerate(levels):
        values = [run.top1 or 0.0 for run in row.cells.get(level, [])]
        if not values:
            continue
        x = i + place * min(0.1, 0.6 / rows)
        at.append(x)
        means.append(fmean(values))
        deviations.append(stdev(values) if len(values) > 1 else 0.0)
        if level == EMERGES:
            reached = fmean(run.realised for run in row.cells[level])
            axis.annotate(f"{100 * reached:.1f}", (x, means[-1]), (4, 0), textcoords="offset points", va="center")
        axis.plot(
            [x] * len(values), values, linestyle="none", marker="o", markersize=2, markerfacecolor="white",
            markeredgecolor=color, markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
    axis.errorbar(
        at, means, deviations, color=color, marker=marker, linestyle=line(row.label, row.variant), elinewidth=0.8,
        label=row.name,
    )  # fmt: skip


def _grid(panels: int, shown: dict[str, Row]) -> tuple[Figure, list[Axes]]:
    """Lay panels out below room for the legend: one in a paper's column, more across its page, three in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    lines = -(-panels // columns)
    width = COLUMN_INCHES if panels == 1 else PAGE_INCHES
    height = 2.1 * lines + 0.15 * -(-len(shown) // _legend_columns(width, shown)) + 0.1
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(lines, columns, i + 1) for i in range(panels)]
    for axis in axes[::columns]:
        axis.set_ylabel("top-1 accuracy (%)")
    return figure, axes


def _legend(figure: Figure, axes: Sequence[Axes], shown: dict[str, Row]) -> None:
    """Put one legend above all panels, where it covers no data."""
    handles = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            # Of an error bar, the line alone.
            handles.setdefault(name, getattr(handle, "lines", [handle])[0])
    names = sorted(handles, key=lambda name: shown[name].rank())
    figure.legend(
        [handles[name] for name in names], names,
        loc="outside upper center", ncols=_legend_columns(figure.get_figwidth(), shown),
    )  # fmt: skip


def _legend_columns(width: float, shown: dict[str, Row]) -> int:
    """Count the legend entries that fit side by side: the longest name takes about 0.06 inches a letter."""
    return max(1, min(len(shown), int(width / (0.5 + 0.06 * max(map(len, shown))))))


def _title(block: Block, sparsity: float = 0.0) -> str:
    """Title a panel, the split named where it is not the test split that everyone assumes."""
    split = "" if block.split == "test" else f" ({block.split})"
    level = "emerges" if sparsity == EMERGES else f"{100 * sparsity:g}%"
    return f"{block.model}, {block.dataset}{split}" + (f", {level}" if sparsity else "")


PRESETS: dict[str, Callable[[Sequence[Run], Path | str], Path | None]] = {"curves": curves, "sparsity": sparsity}
