"""Names beside what they name."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from dstrun.report.figure import sheet
from dstrun.report.figure.labels import GAP, beside, ends, parted, zoom


@pytest.mark.parametrize(
    ("wanted", "apart"),
    [([], []), ([5], [5]), ([0, 20], [0, 20]), ([10, 10], [5, 15]), ([0, 1, 2, 50], [-9, 1, 11, 50])],
)
def test_a_heap_is_parted_around_its_mean(wanted: list[float], apart: list[float]) -> None:
    assert parted(wanted, 10) == pytest.approx(apart)


def test_labels_cover_neither_each_other_nor_points() -> None:
    with sheet():
        figure = Figure(figsize=(3.3, 2.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        left, right = figure.subplots(2, 1)
        points = [(1.0, 40.0 + 0.1 * i, f"gse (epochs={i})", "#000000") for i in range(5)]
        for axis in (left, right):
            axis.plot([0, 1], [0, 100])
            axis.plot([1] * 5, [y for _, y, *_ in points], linestyle="none", marker="o")
        ends(left, points)
        beside(right, points)
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in left.texts]
        tops = sorted(box.y0 for box in boxes)
        assert [high - low for low, high in pairwise(tops)] == pytest.approx([GAP * figure.dpi / 72] * 4, abs=0.5)
        assert all(box.x0 > left.get_window_extent().x1 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert [text.get_text() for text in left.texts] == [f"GSE ({i} epochs)" for i in range(5)]
        boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in right.texts]
        assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])


def test_an_inset_shows_a_heap_where_nothing_is_covered() -> None:
    with sheet():
        figure = Figure(figsize=(3.3, 2.5))
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.plot([0, 1], [0, 0])
        axis.set(xlim=(0, 1), ylim=(0, 1))
        apart = [(0.1 * i, 0.2 * i) for i in range(4)]
        heap = [(0.9, 0.8), (0.9, 0.81), (0.91, 0.82), (0.92, 0.8)]
        zoom(axis, apart, lambda inset: None)
        assert not axis.child_axes
        axis.plot(*zip(*heap, strict=True), linestyle="none", marker="o")
        zoom(axis, heap, lambda inset: None)
        (inset,) = axis.child_axes
        (left, right), (bottom, top) = inset.get_xlim(), inset.get_ylim()
        assert all(left < x < right and bottom < y < top for x, y in heap)
        box = inset.get_position()
        place = axis.transData.inverted().transform(figure.transFigure.transform([(box.x0, box.y0), (box.x1, box.y1)]))
        assert not any(place[0][0] < x < place[1][0] and place[0][1] < y < place[1][1] for x, y in heap)
