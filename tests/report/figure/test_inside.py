"""What happens inside a run: density by layer, topology over time, memory by part."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixture import layers_of, record_of, write, write_topology

from dstrun.report import load
from dstrun.report.figure import sheet
from dstrun.report.figure.kind import layers, memory_pies, memory_split, topology


def test_layers_show_densities_at_first_and_at_last(tmp_path: Path) -> None:
    for seed, last in ((0, 10), (1, 30)):
        record = record_of("gse", 0.9, seed, 90.0)
        record["layers"] = layers_of(("in", 100, 50, last), ("out", 1000, 200, 300 - last))
        write(tmp_path, record)
    write(tmp_path, record_of("rigl", 0.9, 0, 90.0))  # of before there was the field
    with sheet():
        figure = layers.draw(load.runs(tmp_path))
    assert figure is not None
    (axis,) = figure.axes
    start, end = axis.get_lines()
    assert list(start.get_ydata()) == pytest.approx([50, 20])
    assert list(end.get_ydata()) == pytest.approx([20, 28])
    assert (start.get_fillstyle(), end.get_fillstyle()) == ("none", "full")
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["in", "out"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GSE", "first step", "end of training"]
    assert axis.get_yscale() == "linear"


def test_layers_are_numbered_where_there_are_many_and_logarithmic_where_they_spread(tmp_path: Path) -> None:
    record = record_of("gse", 0.9, 0, 90.0)
    record["layers"] = layers_of(*((f"layer{i}", 1000, 1000 if i == 0 else 10, 10) for i in range(25)))
    write(tmp_path, record)
    with sheet():
        figure = layers.draw(load.runs(tmp_path))
    assert figure is not None
    assert figure.axes[0].get_yscale() == "log"
    assert "prunable layer" in figure.axes[0].get_xlabel()


def test_topology_sums_over_layers(tmp_path: Path) -> None:
    for seed, seen in ((0, 0.2), (1, 0.4)):
        record = record_of("gse", 0.9, seed, 90.0)
        record["layers"] = layers_of(("in", 100, 50, 50), ("out", 300, 50, 50))
        first = [(10, "in", 40, 30, 10, seen), (10, "out", 60, 0, 10, 0.2)]
        write_topology(write(tmp_path, record), [*first, (20, "in", 50, 5, 5, 1.0), (20, "out", 50, 0, 0, 0.2)])
    write(tmp_path, record_of("static", 0.9, 0, 90.0))
    # What only prunes has explored everything, and is left out.
    write_topology(write(tmp_path, record_of("snip", 0.9, 0, 90.0)), [(0, "in", 40, 60, 0, 1.0)])
    with sheet():
        figure = topology.draw(load.runs(tmp_path))
    assert figure is not None
    replaced, explored = (axis.get_lines()[0] for axis in figure.axes)
    assert list(replaced.get_xdata()) == [10, 20]
    assert list(replaced.get_ydata()) == pytest.approx([20, 5])
    assert figure.axes[0].get_ylim()[0] < 0  # so that a mark at 0 is whole
    assert list(explored.get_ydata()) == pytest.approx([22.5, 40])
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    assert {round(y, 6) for x, y in band if x == 10} == {20, 25}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GSE"]


def test_topology_says_what_an_old_record_does_not_know(tmp_path: Path) -> None:
    write_topology(write(tmp_path, record_of("gse", 0.9, 0, 90.0)), [(10, "in", 40, 20, 20, 0.3)])
    with sheet():
        figure = topology.draw(load.runs(tmp_path))
    assert figure is not None
    replaced, explored = figure.axes
    assert list(replaced.get_lines()[0].get_ydata()) == [50]
    assert not explored.get_lines()
    assert [text.get_text() for text in explored.texts] == ["not known: records without layers"]


@pytest.mark.parametrize("text", ["", "step,layer\n10,in\n", "step,layer,active,pruned,grown,explored\n1,in,x,1,1,1\n"])
def test_a_damaged_file_is_left_out(text: str, tmp_path: Path) -> None:
    (write(tmp_path, record_of("gse", 0.9, 0, 90.0)) / "topology.csv").write_text(text)
    assert topology.draw(load.runs(tmp_path)) is None


def measured(root: Path, seed: int, **parts: int) -> None:
    record = record_of("gse", 0.9, seed, 90.0, backend="sparse")
    record["memory"] = {f"{part}_bytes": 1_000_000 * size for part, size in parts.items()}
    write(root, record)


def test_parts_of_memory_stack_up_to_the_peak(tmp_path: Path) -> None:
    for seed in (0, 1):
        measured(tmp_path, seed, model=1, optimizer=2, activation=4 + 2 * seed, index=1, transient=0, peak=8)
    with sheet():
        figure = memory_split.draw(load.runs(tmp_path))
    assert figure is not None
    (axis,) = figure.axes
    drawn = {bar.get_label(): (bar.patches[0].get_x(), bar.patches[0].get_width()) for bar in axis.containers}
    assert drawn == {"model": (0, 1), "optimizer": (1, 2), "activation": (3, 4), "index": (7, 1)}  # at most, the peak
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["GSE, sparse, 90%"]
    (peak,) = axis.get_lines()
    assert list(peak.get_xdata()) == [8]


def test_pies_say_shares_and_the_peak(tmp_path: Path) -> None:
    measured(tmp_path, 0, model=1, optimizer=20, activation=79, peak=100)
    with sheet():
        figure = memory_pies.draw(load.runs(tmp_path))
    assert figure is not None
    (axis,) = figure.axes
    sweeps = {wedge.get_label(): abs(wedge.theta2 - wedge.theta1) / 3.6 for wedge in axis.patches}
    assert sweeps == pytest.approx({"model": 1, "optimizer": 20, "activation": 79}, rel=1e-4)
    assert [text.get_text() for text in axis.texts if text.get_text()] == ["20%", "79%"]
    assert axis.get_title() == "GSE, sparse, 90%"
    assert axis.get_xlabel() == "100 MB"
