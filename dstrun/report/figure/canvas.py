"""What every figure shares: the style sheet, a grid of panels, a legend that covers no data, the file."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrun.config.option import nearest
from dstrun.report.figure.asked import asked, name
from dstrun.report.style import SHEET
from dstrun.system import home
from dstrun.system.progress import human
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# What would make two drawings of the same runs differ.
SUFFIXES = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8
MOST_INCHES = 100
MOST_LAYOUTS = 3
LETTERS_PER_INCH = 15
"""Of a title or a legend, at least; longer ones are folded."""
UNMET = "sparsity differs from the target (in brackets)"


def save(draw: Callable[[], Figure | None], *out: Path) -> Path | None:
    """Draw as ``written`` does; return the first file, or None where there was nothing to draw."""
    return None if written(draw, *out) is None else out[0]


def written(draw: Callable[[], Figure | None], *out: Path) -> Figure | None:
    """Draw once in the project's style and write it to every file named; None where there was nothing to draw.

    Raises:
        ConfigError: a file is no png, pdf or svg, or cannot be written.
    """
    for file in out:
        if file.suffix.lower() not in SUFFIXES:
            allowed = ", ".join(SUFFIXES)
            raise ConfigError(f"--out {file} must end in one of {allowed}{nearest(file.suffix, SUFFIXES)}")
    with sheet():
        figure = draw()
        if figure is None:
            return None
        arrange(figure)
        for file in out:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                data = BytesIO()
                suffix = file.suffix.lower()
                figure.savefig(data, format=suffix[1:], metadata=SUFFIXES[suffix])
                write_atomic(file, data.getvalue())
            except OSError as error:
                raise ConfigError(f"--out {file} cannot be written: {why(error)}") from error
    return figure


def drawn(draw: Callable[[], Figure | None]) -> Figure | None:
    """Draw in the project's style, whatever the user's own settings are; None where there was nothing to draw."""
    with sheet():
        figure = draw()
        if figure is not None:
            plain_numbers(figure)
            figure.draw_without_rendering()  # which makes the ticks, by the settings of the moment
        return figure


def arrange(figure: Figure) -> None:
    """Lay a figure out and keep it so, for all files alike; without this, each file takes a layout of its own.

    Labels move with the panels, so one layout does not always keep them inside.
    """
    plain_numbers(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    for _ in range(MOST_LAYOUTS):
        engine.execute(figure)
        box = figure.get_tightbbox()
        if min(box.x0, box.y0, figure.get_figwidth() - box.x1, figure.get_figheight() - box.y1) > -0.01:
            break
    figure.set_layout_engine(None)


def plain_numbers(figure: Figure) -> None:
    """Write the numbers of logarithmic axes without mathematics, which is not read (``sheet``)."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else human(value)))


@contextmanager
def sheet(extra: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw in the project's style, whatever the user's own settings are; ``extra`` are settings that win over it.

    Text, axes, grid and the faces of hollow marks take their colors from there; ``style.NEUTRAL`` is dense training
    and whatever else is no method.
    """
    home.for_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(mpl.rc_params_from_file(SHEET, use_default_template=False))
        mpl.rcParams["text.parse_math"] = False  # a name with two $ is a name
        mpl.rcParams.update(dict(extra or {}))  # type: ignore[arg-type]
        yield


def grid(
    panels: int, ylabel: str = "", *, rows: int = 1, columns: int = 3, height: float = 2.1
) -> tuple[Figure, list[Axes]]:
    """Lay panels out: one in a paper's column, more across its page.

    Args:
        panels: how many, above 0.
        ylabel: of the panels at the left.
        rows: what a panel may have to show; more than eight get more room.
        columns: panels side by side at most.
        height: of a panel, in inches.
    """
    columns = min(panels, asked().columns or columns)
    lines = -(-panels // columns)
    width = PAGE_INCHES if columns > 1 else COLUMN_INCHES
    figure = blank(width, height * lines * (1.15 if rows > 8 else 1))
    axes = [figure.add_subplot(lines, columns, i + 1) for i in range(panels)]
    for axis in axes[::columns]:
        axis.set_ylabel(ylabel)
    return figure, axes


def blank(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, that arranges what is put on it.

    Raises:
        ConfigError: nobody could look at it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from dstrun.report.figure.shown import Shown

    if height > MOST_INCHES:
        raise ConfigError(f"the figure would be {height:.0f} inches tall, above {MOST_INCHES}: choose fewer runs")
    figure = Shown(figsize=(asked().width or width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def title(axis: Axes, text: str, columns: int = 3) -> None:
    """Title a panel, folded to its width where up to ``columns`` stand side by side."""
    alone = len(axis.figure.axes) == 1
    axis.figure.keys = [*getattr(axis.figure, "keys", ()), text]  # type: ignore[union-attr]
    width = axis.figure.get_figwidth() / min(asked().columns or columns, len(axis.figure.axes))  # type: ignore[union-attr]
    axis.set_title(folded((alone and asked().title) or name(text), width))


def folded(text: str, width: float) -> str:
    """Fold a text to a width in inches, never within a word or a hyphenated name."""
    return textwrap.fill(text, max(8, int(width * LETTERS_PER_INCH)), break_long_words=False, break_on_hyphens=False)


def spread(axis: Axis, values: Collection[float]) -> None:
    """Set the limits and ticks of one axis of a panel: logarithmic from four times the smallest value on."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(value for value in values if value > 0), max(values)
    panel, name = axis.axes, axis.axis_name  # type: ignore[attr-defined]
    if high < 4 * low:
        room = max(0.1 * (high - low), 0.02 * high)
        panel.set(**{f"{name}lim": (low - room, high + room)})
        panel.locator_params(axis=name, nbins=5)
        return
    panel.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.2, high * 1.2)})
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())


def finish(
    figure: Figure,
    names: Sequence[str],
    n: Collection[int],
    extra: Mapping[str, Any] | None = None,
    unmet: Sequence[str] = (),
    *,
    legend: bool = True,
) -> None:
    """Place one legend above all panels, and note over how many seeds the means are.

    Args:
        figure: its panels are drawn.
        names: of what is drawn, in the order of the legend.
        n: the seeds of every mean.
        extra: more handles by name, to stand at the end of the legend.
        unmet: what has another sparsity than panels or axes say, ``compare.unmet``; the note says it too.
        legend: whether rows have one; else they are labelled where they are drawn.
    """
    low, high = min(n), max(n)
    notes = [f"n = {low}" + ("" if low == high else f" to {high}") + f" seed{'s' * (high > 1)}"]
    notes += [f"{UNMET}: {', '.join(unmet)}"] if unmet else []
    figure.note = "; ".join(notes)  # type: ignore[attr-defined]
    figure.keys = [*getattr(figure, "keys", ()), *names, *(extra or {})]  # type: ignore[attr-defined]
    if limits := asked().ylim:
        for axis in figure.axes:
            axis.set_ylim(*limits)
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            # Of an error bar, the line alone.
            handles.setdefault(label, getattr(handle, "lines", [handle])[0])
    shown = {label: handles[label] for label in names if label in handles and legend} | dict(extra or {})
    above = asked().title if len(figure.axes) > 1 else ""
    if not shown:
        if above:
            figure.suptitle(above)
        return
    width = figure.get_figwidth()
    texts = [folded(name(label), width - 0.5) for label in shown]
    # As many columns as fit, by the size that a single one takes: inches, of which 0.2 part two columns.
    single = figure.legend(list(shown.values()), texts, loc="outside upper center")
    columns = max(1, min(len(texts), int((width + 0.2) / (_inches(figure, single)[0] + 0.2))))
    single.remove()
    columns = -(-len(texts) // -(-len(texts) // columns))  # no more than fill the lines evenly
    made = figure.legend(list(shown.values()), texts, loc="outside upper center", ncols=columns, title=above or None)
    figure.set_figheight(figure.get_figheight() + _inches(figure, made)[1])


def _inches(figure: Figure, artist: Any) -> tuple[float, float]:
    box = artist.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return box.width / figure.dpi, box.height / figure.dpi
