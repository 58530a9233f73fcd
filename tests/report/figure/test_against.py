"""Accuracy against sparsity, FLOPs and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fixture import record_of, write

from dstrun.report import load
from dstrun.report.figure import PRESETS, sheet
from dstrun.report.figure.kind import flops, memory, sparsity


def bars(axis) -> dict[str, tuple[list[float], list[float]]]:
    """Return the places and means of every error bar by name."""
    return {
        bar.get_label(): (list(bar.lines[0].get_xdata()), list(bar.lines[0].get_ydata())) for bar in axis.containers
    }


def test_sparsity_shows_means_seeds_and_dense(sweep: list[load.Run]) -> None:
    with sheet():
        figure = sparsity.draw(sweep)
    assert figure is not None
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["90", "95", "98"]
    assert bars(axis)["set"][1] == pytest.approx([90.4, 88.5, 84.7666667])
    dense = next(line for line in axis.get_lines() if line.get_label() == "dense")
    assert list(dense.get_ydata()) == pytest.approx([93.0, 93.0])
    (band,) = axis.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((92.9, 0.2))
    seeds = [line for line in axis.get_lines() if line.get_markersize() == 2]
    assert sorted(len(line.get_xdata()) for line in seeds) == [2] + [3] * 8


def test_rows_of_one_method_share_its_hue(results: Path) -> None:
    write(results, record_of("gse", 0.98, 0, 88.0, epochs=60), folder="long")
    with sheet():
        figure = sparsity.draw(load.runs(results))
    assert figure is not None
    drawn = {bar.get_label(): bar.lines[0] for bar in figure.axes[0].containers}
    short, long = drawn["gse (epochs=30)"], drawn["gse (epochs=60)"]
    assert short.get_color() == long.get_color()
    assert short.get_marker() != long.get_marker()
    assert short.get_linestyle() != long.get_linestyle()


def test_flops_marks_the_front(sweep: list[load.Run]) -> None:
    with sheet():
        figure = flops.draw(sweep)
    assert figure is not None
    (axis,) = figure.axes
    xs, means = bars(axis)["rigl"]
    assert xs == pytest.approx([0.1, 0.05, 0.02])
    assert means == pytest.approx([91.1, 89.5, 86.2])
    assert "training FLOPs (x dense)" in axis.get_xlabel()
    front = next(line for line in axis.get_lines() if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == pytest.approx([0.02, 0.05, 0.1, 1, 1])
    assert list(front.get_ydata()) == pytest.approx([87.35, 89.9666667, 91.1666667, 93, 93])
    assert figure.legends[0].get_texts()[-1].get_text() == "Pareto front"


def test_flops_are_absolute_where_dense_means_two_things(results: Path) -> None:
    longer = record_of("gse", 0.98, 0, 88.0, epochs=60)
    longer["flops"]["train"] *= 2
    write(results, longer, folder="long")
    with sheet():
        figure = flops.draw(load.runs(results))
    assert figure is not None
    assert figure.axes[0].get_xlabel() == "training FLOPs"
    assert bars(figure.axes[0])["gse (epochs=60)"][0] == pytest.approx([2 * 1.1e15 * 0.02])


def measured(root: Path, label: str, backend: str, peak: int, **env: object) -> None:
    record = record_of(label, 0.0 if label == "dense" else 0.9, 0, 90.0, backend=backend)
    record["memory"]["peak_bytes"] = peak
    record["env"] |= env
    write(root, record, f"{label}-{backend}-{env}")


def test_memory_names_backends_and_keeps_them_apart(tmp_path: Path) -> None:
    measured(tmp_path, "gse", "masked", 500_000_000)
    measured(tmp_path, "gse", "sparse", 300_000_000)
    measured(tmp_path, "set", "sparse", 200_000_000)
    measured(tmp_path, "dense", "masked", 450_000_000)
    with sheet():
        figure = memory.draw(load.runs(tmp_path))
    assert figure is not None
    (axis,) = figure.axes
    assert {name: xs for name, (xs, _) in bars(axis).items()} == {
        "dense": [450], "set, sparse": [200], "gse, masked": [500], "gse, sparse": [300],
    }  # fmt: skip
    fills = {bar.get_label(): bar.lines[0].get_fillstyle() for bar in axis.containers}
    assert (fills["gse, masked"], fills["gse, sparse"]) == ("none", "full")


@pytest.mark.parametrize("preset", ["memory", "memory_split"])
def test_memory_of_two_devices_is_never_averaged(preset: str, tmp_path: Path) -> None:
    for device in ({"device": "cpu"}, {"device": "NVIDIA A100"}, {"device": "cpu", "processes": 2}):
        measured(tmp_path, "gse", "sparse", 300_000_000, **device)
    runs = load.runs(tmp_path)
    for run in runs:
        run.record["memory"]["model_bytes"] = 1000  # type: ignore[index]
    with sheet():
        figure = PRESETS[preset].draw(runs)
    assert figure is not None
    assert [axis.get_title().replace("\n", " ") for axis in figure.axes] == [
        f"ResNet-56, CIFAR-10, {device}" for device in ("NVIDIA A100", "cpu", "cpu, 2 processes")
    ]
