"""Figures of what ``dstrun bench`` has measured, from its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrun.report.figure.asked import name as shown
from dstrun.report.figure.canvas import PAGE_INCHES, blank, save
from dstrun.report.style import HATCHES, HUES, LINES, MARKERS, NEUTRAL, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Look = dict[str, Any]
LAYERS: list[Look] = [
    {"color": list(HUES.values())[place % len(HUES)], "marker": MARKERS[place], "linestyle": LINES[place % len(LINES)]}
    for place in range(len(MARKERS))
]
"""The look of each layer of a panel; marker and line tell them apart where there is no color."""
IMPLEMENTATIONS: dict[str, Look] = {
    "dense": {"color": NEUTRAL, "marker": "D", "linestyle": "--"},
    "masked": {"color": HUES["purple"], "marker": "o", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "torch coo": {"color": HUES["sky"], "marker": "v", "linestyle": ":"},
    "torch csr": {"color": HUES["orange"], "marker": "s", "linestyle": "-."},
    "sparse": {"color": HUES["vermillion"], "marker": "^", "linestyle": "-"},
}
"""The same in every figure; no two share a marker or a line."""
STORED = {
    "dense": "dense", "masked": "masked (dense storage)", "torch coo": "COO (PyTorch)", "torch csr": "CSR (PyTorch)",
    "sparse": "sparse (ours)", "onnxruntime": "ONNX Runtime", "sparseprop": "SparseProp",
}  # fmt: skip
"""What an implementation is called in a legend."""
PEERS = ("torch csr", "sparseprop")
"""Implementations of whole steps that are named as in a legend; the others are a backend and a method."""
LEVEL = 6
"""So many names of implementations fit side by side below a panel."""
FORMATS = ("dense", "torch coo", "torch csr", "sparse")
"""What is drawn over sparsity and width: ways to store a weight, of which ``masked`` is none."""


def plot(rows: Sequence[Row], *out: Path) -> Path | None:
    """Draw the rows of one bench; None where there are none.

    Raises:
        ConfigError: a file is no png, pdf or svg, or cannot be written.
    """
    return save(drawing(rows), *out)


def drawing(rows: Sequence[Row]) -> Callable[[], Figure | None]:
    """Return what draws the rows of one bench."""
    return lambda: FIGURES[rows[0]["bench"]](rows) if rows else None


def draw_kernel(rows: Sequence[Row]) -> Figure:
    """Draw times where all layers are square and linear, so that they differ in width alone, and ratios elsewhere."""
    several = len({(row["layer"], row["sparsity"]) for row in rows}) > 1
    return draw_linear(rows) if several and all(_width(row) for row in rows) else draw_ratios(rows)


def draw_linear(rows: Sequence[Row]) -> Figure:
    """Draw milliseconds of square linear layers against sparsity and against width, a line an implementation.

    The forward product above, the sum of the three below, at the middle and the largest of the widths and sparsities.
    Axes are logarithmic, that of sparsity in density; bars are quartiles over rounds.
    """
    widths, levels = sorted({_width(row) for row in rows}), sorted({row["sparsity"] for row in rows})
    panels = [
        ("sparsity (%)", f"width {width:,}", [(1 - row["sparsity"], row) for row in rows if _width(row) == width])
        for width in _two(widths)
        if len(levels) > 1
    ] + [
        ("width n", f"{100 * level:g}% sparse", [(_width(row), row) for row in rows if row["sparsity"] == level])
        for level in _two(levels)
        if len(widths) > 1
    ]
    figure, axes = _figure(len(panels), 1.75, 2)
    for axis, (key, (across, title, points)) in zip(axes, product(("forward", "sum"), panels), strict=True):
        upper = key == "forward"
        axis.sharey(axes[0 if upper else len(panels)])
        for name in FORMATS:
            mine = [(x, row) for x, row in points if (row["implementation"], row["pass"]) == (name, key)]
            _bars(axis, sorted(mine, key=lambda point: point[0]), "", 1e3, **IMPLEMENTATIONS[name], label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        if across == "width n":
            axis.set_xticks(widths, [_short(width) for width in widths])
        else:
            axis.set_xticks([1 - level for level in levels], [f"{100 * level:g}" for level in levels])
            axis.invert_xaxis()
        axis.minorticks_off()
        axis.set_xlabel(across)
        axis.set_ylabel("forward (ms)" if upper else "all three products (ms)")
        axis.set_title(title if upper else "")
        axis.label_outer()
    handles, names = axes[0].get_legend_handles_labels()
    handles = [getattr(handle, "lines", [handle])[0] for handle in handles]
    figure.legend(
        handles,
        [STORED.get(str(name), str(name)) for name in names],
        loc="outside upper center",
        ncols=len(FORMATS),
        handlelength=3.5,
    )
    return figure


def _width(row: Row) -> int:
    """Read n of a linear layer ``n-n``; 0 of all others."""
    inputs, _, outputs = row["layer"].partition("-")
    return int(inputs) if inputs == outputs and inputs.isdigit() else 0


def _two(values: Sequence[Any]) -> Sequence[Any]:
    """Choose the middle and the last."""
    return list(dict.fromkeys((values[(len(values) - 1) // 2], values[-1])))


def draw_ratios(rows: Sequence[Row]) -> Figure:
    """Draw how many times longer the better dense layout takes, against sparsity; bars are quartiles over rounds."""
    sums = [row for row in rows if row["pass"] == "sum"]
    layouts = {row["layer"] for row in sums if row["implementation"] == "dense channels_last"}
    layers = list(dict.fromkeys(row["layer"] for row in sums))
    panels = {
        "convolutions": [layer for layer in layers if layer in layouts],
        "linear": [layer for layer in layers if layer not in layouts],
    }
    panels = {title: names for title, names in panels.items() if names}
    levels = sorted({row["sparsity"] for row in sums})
    figure, axes = _figure(len(panels), 2.5 + 0.12 * max(map(len, panels.values())))
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(names):
            best = [_better([r for r in sums if (r["layer"], r["sparsity"]) == (name, s)]) for s in levels]
            aside = 0.03 * (place - (len(names) - 1) / 2)
            points = [(levels.index(row["sparsity"]) + aside, row) for row in best if row is not None]
            _bars(axis, points, "x_", 1.0, **LAYERS[place % len(LAYERS)], label=layer(name))
        axis.axhline(1, color=PALE, linestyle="--", linewidth=0.8)
        axis.set_title(title)
        axis.set_xticks(range(len(levels)), [f"{100 * level:g}" for level in levels])
        axis.set_xlabel("sparsity (%)")
        _powers(axis)
        _legend(
            axis,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=1,
            fontsize=6.5,
            handlelength=3,
        )
    axes[0].set_ylabel("time of dense / time of sparse")
    return figure


def _better(rows: Sequence[Row]) -> Row | None:
    dense = [row for row in rows if row["implementation"].startswith("dense") and row["x_median"] is not None]
    return min(dense, key=lambda row: row["median"], default=None)


def draw_infer(rows: Sequence[Row]) -> Figure:
    """Draw how many times longer a dense pass takes, of each implementation and batch, against sparsity."""
    others = [name for name in dict.fromkeys(row["implementation"] for row in rows) if name != "sparse"]
    panels = [(name, batch) for batch in dict.fromkeys(row["batch"] for row in rows) for name in others]
    levels, names = sorted({row["sparsity"] for row in rows}), list(dict.fromkeys(row["network"] for row in rows))
    figure, axes = _figure(len(others), 2.6, len(panels) // len(others))
    for axis, panel in zip(axes, panels, strict=True):
        mine = [row for row in rows if (row["implementation"], row["batch"]) == panel and row["x_median"] is not None]
        for place, name in enumerate(names):
            points = [(float(levels.index(row["sparsity"])), row) for row in mine if row["network"] == name]
            _bars(axis, points, "x_", 1.0, **LAYERS[place % len(LAYERS)], label=layer(name))
        axis.axhline(1, color=PALE, linestyle="--", linewidth=0.8)
        axis.set_title(f"{STORED.get(panel[0], panel[0])}, batch {panel[1]:g}")
        axis.set_xticks(range(len(levels)), [f"{100 * level:g}" for level in levels])
        axis.set_xlabel("sparsity (%)")
        axis.set_ylabel("its time / time of sparse")
        _powers(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    handles = [getattr(handle, "lines", [handle])[0] for handle in handles]
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


def draw_scaling(rows: Sequence[Row]) -> Figure:
    """Draw milliseconds and megabytes of a training step against width, both axes logarithmic.

    Widths that nothing was measured of have no tick.
    """
    figure, axes = _figure(2, 2.7)
    for name in dict.fromkeys(row["implementation"] for row in rows):
        color, marker = (IMPLEMENTATIONS[name][key] for key in ("color", "marker"))
        mine = sorted((row for row in rows if row["implementation"] == name), key=lambda row: row["n"])
        timed = [(row["n"], row) for row in mine if row["median"] is not None]
        _bars(axes[0], timed, "", 1e3, color=color, marker=marker, label=name)
        for key, line, face in (("bytes", "-", color), ("resident_bytes", ":", "none")):
            held = [(row["n"], row[key] / 1e6) for row in mine if row[key] is not None]
            axes[1].plot(
                [n for n, _ in held], [mb for _, mb in held],
                color=color, marker=marker, linestyle=line, markerfacecolor=face,
            )  # fmt: skip
    for axis, what in zip(axes, ("a training step (ms)", "memory (MB)"), strict=True):
        axis.set_ylabel(what)
        axis.set_xscale("log", base=2)
        sizes = sorted({int(row["n"]) for row in rows if row["median"] is not None or row["bytes"] is not None})
        some = sizes[:: -(-len(sizes) // 7)]
        axis.set_xticks(some, [_short(n) for n in some])
        axis.minorticks_off()
        axis.set_yscale("log")
        axis.set_xlabel("width n")
    axes[0].set_title(f"three layers n to n, {rows[0]['degree']:g} connections per unit")
    axes[1].set_title("memory of a training step")
    handles, names = axes[0].get_legend_handles_labels()
    handles = [getattr(handle, "lines", [handle])[0] for handle in handles]
    peak = "peak of the GPU" if rows[0].get("device") == "cuda" else "peak of the process"
    from matplotlib.lines import Line2D

    kinds = {
        "held by training": Line2D([], [], color=NEUTRAL, marker="o", linestyle="-"),
        peak: Line2D([], [], color=NEUTRAL, marker="o", linestyle=":", markerfacecolor="none"),
    }
    figure.legend(
        [*handles, *kinds.values()], [*(STORED.get(str(name), str(name)) for name in names), *kinds],
        loc="outside upper center", ncols=3, handlelength=2.6,
    )  # fmt: skip
    return figure


def draw_step(rows: Sequence[Row]) -> Figure:
    """Draw the time and the peak memory of steps and updates as bars, a row of panels a sparsity."""
    levels = list(dict.fromkeys(row["sparsity"] for row in rows))
    figure, axes = _figure(2, 2.2, len(levels))
    for level, pair in zip(levels, zip(axes[::2], axes[1::2], strict=True), strict=True):
        mine = [row for row in rows if row["sparsity"] == level]
        updated = {row["implementation"] for row in mine if row["pass"] == "update"}
        for axis, key, scale, what in zip(
            pair, ("median", "bytes"), (1e3, 1e-6), ("time (ms)", "peak memory (MB)"), strict=True
        ):
            names = list(dict.fromkeys(row["implementation"] for row in mine if row[key] is not None))
            for place, (kind, color, hatch) in enumerate(
                (("step", HUES["sky"], ""), ("update", HUES["vermillion"], HATCHES[1]))
            ):
                found = [row for row in mine if row["pass"] == kind and row[key] is not None]
                aside = [0.38 * (place - 0.5) if row["implementation"] in updated else 0.0 for row in found]
                at = [names.index(row["implementation"]) + x for row, x in zip(found, aside, strict=True)]
                heights = [scale * row[key] for row in found]
                errors = [_error(row, "", scale) for row in found] if key == "median" else []
                axis.bar(
                    at, heights, 0.36, color=color, hatch=hatch, edgecolor="white", linewidth=0, label=kind,
                    error_kw={"elinewidth": 0.7}, yerr=list(zip(*errors, strict=True)) or None,
                )  # fmt: skip
            _name(axis, names)
            axis.set_ylabel(what)
            axis.set_title(f"{shown(mine[0]['model'])}, {100 * level:g}%")
            axis.grid(visible=False, axis="x")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, [KINDS[name] for name in names], loc="outside upper center", ncols=2)
    return figure


def _name(axis: Axes, names: Sequence[str]) -> None:
    """Name implementations below their bars: in two lines, or at a slant where there are many."""
    said = [STORED[name] if name in PEERS else " ".join(map(shown, name.split(" "))) for name in names]
    if len(names) > LEVEL:
        axis.set_xticks(range(len(names)), said, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axis.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in said])


def _figure(columns: int, height: float, lines: int = 1) -> tuple[Figure, list[Axes]]:
    figure = blank(PAGE_INCHES, height * lines)
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(lines * columns)]


def _bars(axis: Axes, points: Sequence[tuple[float, Row]], prefix: str, scale: float, **look: Any) -> None:
    """Draw medians with their quartiles."""
    errors = [_error(row, prefix, scale) for _, row in points]
    axis.errorbar(
        [x for x, _ in points], [scale * row[f"{prefix}median"] for _, row in points],
        list(zip(*errors, strict=True)) or None, elinewidth=0.7, capsize=1.2, **look,
    )  # fmt: skip


def _legend(axis: Axes, **look: Any) -> None:
    """Show the lines without their error bars."""
    handles, names = axis.get_legend_handles_labels()
    axis.legend([getattr(handle, "lines", [handle])[0] for handle in handles], names, **look)


def _error(row: Row, prefix: str, scale: float) -> tuple[float, float]:
    low, middle, high = (scale * row[f"{prefix}{key}"] for key in ("q1", "median", "q3"))
    return middle - low, high - middle


def _powers(axis: Axes) -> None:
    """Make the vertical axis logarithmic with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def draw_machine(rows: Sequence[Row]) -> Figure:
    """Draw gigabytes a second of reads and copies against what each thread goes over."""
    figure, (axis,) = _figure(1, 2.7)
    for name, key in (("read", "sparse"), ("copy", "masked")):
        mine = [row for row in rows if row["implementation"] == name]
        rates = [row["bytes"] / row["median"] / 1e9 for row in mine]
        axis.plot([row["kilobytes"] for row in mine], rates, label=name, **IMPLEMENTATIONS[key])
    axis.set_xscale("log", base=2)
    sizes = sorted({int(row["kilobytes"]) for row in rows} - {0})
    axis.set_xticks(sizes, [f"{size // 1024} MB" if size >= 1024 else f"{size} kB" for size in sizes])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("read and written again and again, per thread")
    axis.set_ylabel("GB/s, all threads")
    axis.legend()
    return figure


KINDS = {"step": "a training step", "update": "a step with a topology update"}
SHAPED = re.compile(
    r"(R56-s(?P<stage>\d)|(?P<small>gse)?VGG(?P<channels>\d+)@(?P<side>\d+)|(?P<vit>ViT)?(?P<n>\d+)-(?P<m>\d+))"
)


def layer(code: str) -> str:
    """Write out the code of a layer, and the code: ``ResNet-56, stage 1 (R56-s1)``."""
    of = SHAPED.fullmatch(code)
    if of is None or shown(code) != code:
        return shown(code)
    if of["stage"]:
        return f"ResNet-56, stage {of['stage']} ({code})"
    if of["channels"]:
        net = "small VGG-16" if of["small"] else "VGG-16"
        return f"{net}, {of['channels']} channels, {of['side']}×{of['side']} ({code})"
    sizes = f"{int(of['n']):,} to {int(of['m']):,}"
    return f"ViT, {sizes} ({code})" if of["vit"] else sizes


def _short(n: int) -> str:
    """Shorten a power of two: ``64k``, ``1M``."""
    for power, letter in ((20, "M"), (10, "k")):
        if n >= 1 << power and n % (1 << power) == 0:
            return f"{n >> power}{letter}"
    return str(n)


FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "kernel": draw_kernel,
    "scaling": draw_scaling,
    "step": draw_step,
    "infer": draw_infer,
    "machine": draw_machine,
}
