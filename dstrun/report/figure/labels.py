"""Labels beside points, and insets where points are crowded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dstrun.report.figure.asked import name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 6.5
"""Points."""
GAP = 1.25 * SIZE
AROUND = (
    (5, 0, "left", "center"), (10, 0, "left", "center"), (-5, 0, "right", "center"),
    (0, 6, "center", "bottom"), (0, -6, "center", "top"),
    (5, 6, "left", "bottom"), (5, -6, "left", "top"), (-5, 6, "right", "bottom"), (-5, -6, "right", "top"),
    (9, 11, "left", "bottom"), (9, -11, "left", "top"), (-9, 11, "right", "bottom"), (-9, -11, "right", "top"),
    (0, 17, "center", "bottom"), (0, -17, "center", "top"), (12, 24, "left", "bottom"), (12, -24, "left", "top"),
    (18, 4, "left", "bottom"), (18, -4, "left", "top"), (26, 14, "left", "bottom"), (26, -14, "left", "top"),
    (34, 30, "left", "bottom"), (34, -30, "left", "top"), (-18, 20, "right", "bottom"), (-18, -20, "right", "top"),
)  # fmt: skip
"""Where a label may stand beside its point: moved by so many points, and how it is aligned there."""
HEAP, NEAR = 4, (0.12, 0.14)
"""So many rows within such a part of a panel are a heap."""
FRAME = "#808080"
SIZES = ((0.42, 0.4), (0.36, 0.34), (0.3, 0.3), (0.25, 0.26))
"""Of an inset, in parts of a panel."""
Point = tuple[float, float, str, Any]
"""Where, the name, and the color."""


def ends(axis: Axes, points: Sequence[Point]) -> None:
    """Write names to the right of the ends of lines, parted so that none covers another."""
    axis.figure.get_layout_engine().execute(axis.figure)  # type: ignore[union-attr]
    dots = axis.figure.dpi / 72  # type: ignore[union-attr]
    box = axis.get_window_extent()
    right = box.x1
    points = sorted(points, key=lambda point: point[1])
    at = [axis.transData.transform((x, y)) / dots for x, y, *_ in points]
    wanted = [min(max(y, box.y0 / dots), box.y1 / dots) for _, y in at]
    for (x, y, text, color), (across, up), place in zip(points, at, parted(wanted, GAP), strict=True):
        axis.annotate(
            name(text), (x, y), (max(right / dots - across, 0) + 7, place - up), textcoords="offset points",
            fontsize=SIZE, va="center", ha="left", color=color, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def parted(wanted: Sequence[float], gap: float) -> list[float]:
    """Move ascending places apart to ``gap`` at least, as little as it takes: a heap stays around its mean."""
    heaps: list[list[float]] = []  # sum of wanted - i * gap, and how many
    for i, place in enumerate(wanted):
        heaps.append([place - i * gap, 1])
        while len(heaps) > 1 and heaps[-2][0] / heaps[-2][1] > heaps[-1][0] / heaps[-1][1]:
            total, count = heaps.pop()
            heaps[-1][0] += total
            heaps[-1][1] += count
    starts = [total / count for total, count in heaps for _ in range(int(count))]
    return [start + i * gap for i, start in enumerate(starts)]


def beside(axis: Axes, points: Sequence[Point], others: Sequence[tuple[float, float]] = ()) -> None:
    """Write names beside points where they cover least: each other, ``others``, lines, and the edge of the panel."""
    from matplotlib.text import Text

    figure = axis.figure
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    dots, frame = figure.dpi / 72, axis.get_window_extent()  # type: ignore[union-attr]
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr]
    marks = [axis.transData.transform(point) for point in (*others, *((x, y) for x, y, *_ in points))]
    lines = [_dense(line.get_transform().transform(line.get_xydata())) for line in axis.lines]
    bars: list[Any] = list(axis.collections)  # of errors
    lines += [_dense(axis.transData.transform(part)) for bar in bars for part in bar.get_segments()]
    drawn = [point for line in lines for point in line]
    written: list[Any] = []
    for x, y, text, color in points:
        best, least = None, float("inf")
        at = axis.transData.transform((x, y))
        made = axis.annotate(
            name(text), (x, y), (0, 0), textcoords="offset points", fontsize=SIZE, color=color, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
        size = Text.get_window_extent(made, renderer)  # without the arrow
        for cost, (right, up, ha, va) in enumerate(AROUND):
            left = at[0] + right * dots - size.width * {"left": 0, "center": 0.5, "right": 1}[ha]
            low = at[1] + up * dots - size.height * {"bottom": 0, "center": 0.5, "top": 1}[va]
            edges = (left, low, left + size.width, low + size.height)
            over = sum(_shared(edges, box) for box in written) / (size.width * size.height)
            hit = sum(_within(mark, edges, 2 * dots) for mark in marks if tuple(mark) != tuple(at))
            out = edges[0] < frame.x0 or edges[2] > frame.x1 + 40 * dots or edges[1] < frame.y0 or edges[3] > frame.y1
            crossed = min(sum(_within(point, edges, 1.5 * dots) for point in drawn), 5)
            price = 40 * over + 4 * hit + 8 * out + crossed + 0.1 * cost
            if price < least:
                best, least = (right, up, ha, va, edges), price
        assert best is not None
        made.set(ha=best[2], va=best[3])
        made.set_position(best[:2])
        written.append(best[4])


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the area that two boxes share, in square pixels."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0)


def _within(mark: Any, box: Sequence[float], room: float) -> bool:
    return box[0] - room < mark[0] < box[2] + room and box[1] - room < mark[1] < box[3] + room


def zoom(axis: Axes, points: Sequence[tuple[float, float]], redraw: Callable[[Axes], None], back: float = 0) -> None:
    """Show the heap of points, if there is one, in an inset in a corner that is free.

    Args:
        axis: drawn, with its limits.
        points: means, one a row.
        redraw: draws the same into the inset.
        back: how far the inset begins to the left of the points, in parts of the panel.
    """
    inside = axis.transData + axis.transAxes.inverted()
    at = [tuple(inside.transform(point)) for point in points]
    heaps = [[(x, y) for x, y in at if abs(x - a) <= NEAR[0] and abs(y - b) <= NEAR[1]] for a, b in at]
    heap = max(heaps, key=len, default=[])
    taken = [tuple(inside.transform(point)) for line in axis.lines for point in _dense(line.get_xydata())]
    place = _free(taken) if len(heap) >= HEAP else None
    if place is None:
        return
    xs, ys = zip(*heap, strict=True)
    low, high = (min(xs) - back - 0.04, min(ys) - 0.06), (max(xs) + 0.04, max(ys) + 0.06)
    inset = axis.inset_axes(place)
    redraw(inset)
    (left, bottom), (right, top) = inside.inverted().transform([low, high])
    inset.set(xscale=axis.get_xscale(), xlim=(left, right), ylim=(bottom, top), xlabel="", ylabel="", title="")
    inset.tick_params(labelsize=5.5, length=1.5, pad=1)
    inset.locator_params(axis="y", nbins=4)
    inset.tick_params(axis="x", which="both", labelbottom=False, bottom=False)
    # Lines from the part to the inset would cross the data; there is one of each, and both have the same frame.
    axis.indicate_inset((left, bottom, right - left, top - bottom), edgecolor=FRAME, linewidth=0.5, alpha=1)
    for spine in inset.spines.values():
        spine.set(visible=True, edgecolor=FRAME, linewidth=0.5)


def _dense(line: Any) -> Any:
    """Return the points of a line and some between them, that what crosses a corner counts."""
    import numpy as np

    line = np.asarray(line, dtype=float)
    if len(line) < 2 or len(line) > 500:
        return line
    return np.concatenate([line[:-1] + (line[1:] - line[:-1]) * part for part in np.linspace(0, 1, 12)])


def _free(taken: Sequence[Sequence[float]]) -> tuple[float, float, float, float] | None:
    """Return the largest place for an inset, its numbers at the left included, that covers no point of a panel."""
    for wide, high in SIZES:
        for up in (0.97 - high, 0.08, 0.3, 0.5):
            for left in (0.1, 0.98 - wide, 0.3, 0.5):
                if not any(left - 0.09 < x < left + wide + 0.02 and up - 0.04 < y < up + high + 0.03 for x, y in taken):
                    return left, up, wide, high
    return None
