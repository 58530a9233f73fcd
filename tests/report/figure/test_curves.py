from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.collections import LineCollection
from report_fixture import record_of, write

from dstrun.report import load
from dstrun.report.figure import sheet
from dstrun.report.figure.kind import curves


def test_shows_mean_and_seeds(sweep: list[load.Run]) -> None:
    with sheet():
        figure = curves.draw(sweep)
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == [f"ResNet-56, CIFAR-10, {s}%" for s in (90, 95, 98)]
    axis = figure.axes[2]
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == ["dense", "set", "rigl", "gse"]
    assert list(lines["gse"].get_xdata()) == list(range(1, 31))
    assert lines["gse"].get_ydata()[-1] == pytest.approx(87.35)
    singles = [collection for collection in axis.collections if isinstance(collection, LineCollection)]
    assert [len(single.get_segments()) for single in singles] == [3, 3, 3, 2]
    assert [segment[-1][1] for segment in singles[3].get_segments()] == pytest.approx([87.2, 87.5])


def test_many_seeds_become_a_band(tmp_path: Path) -> None:
    for seed in range(11):
        write(tmp_path, record_of("gse", 0.9, seed, 90 + seed / 10, epochs=3))
    with sheet():
        figure = curves.draw(load.runs(tmp_path))
    assert figure is not None
    (band,) = figure.axes[0].collections
    assert not isinstance(band, LineCollection)
    last = [y for x, y in band.get_paths()[0].vertices if x == 3]
    assert (min(last), max(last)) == pytest.approx((90, 91))
    assert figure.axes[0].get_lines()[0].get_ydata()[-1] == pytest.approx(90.5)
    assert figure.note == "n = 11 seeds"
