"""Accuracy and FLOPs over a setting: which runs are drawn, which are kept apart, and which are left out."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write

from dstrun.report import load
from dstrun.report.figure import sheet
from dstrun.report.figure.kind import allocation, improvement, subset, width


class Study:
    """Writes runs one by one, and draws them."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def add(
        self, label: str, sparsity: float, seed: int, top1: float, prunable: int = 0, flops: int = 0, **changes: Any
    ) -> None:
        record = record_of(label, sparsity, seed, top1, **changes)
        record["parameters"]["prunable"] = prunable
        record["flops"]["train"] = flops or record["flops"]["train"]
        self.count += 1
        write(self.root, record, str(self.count))

    def draw(self, preset: Any) -> Any:
        with sheet():
            return preset.draw(load.runs(self.root))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def errorbars(axis: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        bar.get_label(): (list(bar.lines[0].get_xdata()), list(bar.lines[0].get_ydata())) for bar in axis.containers
    }


def level_of(axis: Any, name: str) -> float:
    return next(line for line in axis.get_lines() if line.get_label() == name).get_ydata()[0]


def test_subset_has_a_line_a_distribution_and_rigl(study: Study) -> None:
    for gamma in (0.5, 1, 2):
        for seed in (0, 1):
            study.add("gse", 0.9, seed, 80 + gamma + seed, **{"grow.gamma": gamma})
            study.add("gse-grabo", 0.9, seed, 85 + gamma + seed, grow="gse", subset="grabo", **{"grow.gamma": gamma})
    study.add("rigl", 0.9, 0, 89.0)
    study.add("rigl", 0.9, 0, 50.0, epochs=99)  # trained otherwise: no reference of these
    study.add("rigl", 0.98, 0, 40.0)
    study.add("set", 0.9, 0, 30.0)
    figure = study.draw(subset)
    (axis,) = figure.axes
    assert axis.get_title() == "ResNet-56, CIFAR-10, 90%"
    drawn = errorbars(axis)
    assert drawn.keys() == {"gse", "gse-grabo"}
    assert drawn["gse"][1] == pytest.approx([81, 81.5, 82.5])
    assert drawn["gse-grabo"][1] == pytest.approx([86, 86.5, 87.5])
    assert [round(x, 1) for x in drawn["gse"][0]] == [0.5, 1, 2]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.5", "1", "2"]
    assert level_of(axis, "rigl") == 89
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["RigL", "GSE", "GSE-GraBo"]


def test_subset_splits_what_differs_in_anything_else(study: Study) -> None:
    for gamma in (0.5, 1):
        for epochs in (30, 60):
            study.add("gse", 0.9, 0, 20 + gamma + epochs, epochs=epochs, **{"grow.gamma": gamma})
    (axis,) = study.draw(subset).axes
    drawn = errorbars(axis)
    assert {name: values for name, (_, values) in drawn.items()} == {
        "gse (epochs=30)": [50.5, 51], "gse (epochs=60)": [80.5, 81],
    }  # fmt: skip


def test_one_gamma_is_no_figure(study: Study) -> None:
    study.add("gse", 0.9, 0, 80.0)
    study.add("gse-grabo", 0.9, 0, 80.0, grow="gse", subset="grabo")
    study.add("gse", 0.98, 0, 80.0, **{"grow.gamma": 2.0})
    assert study.draw(subset) is None


def test_improvement_compares_pairs_alike_in_all_but_growth(study: Study) -> None:
    for interval, saved in ((100, 30), (1000, 10)):
        times = {"schedule.recipe_interval_steps": interval, "schedule.recipe_steps": 78000}
        for seed in (0, 1):
            for sparsity in (0.9, 0.98):
                more = saved + 10 * (sparsity == 0.98) + 2 * seed
                study.add("rigl", sparsity, seed, 80.0, flops=10_000, **times)
                study.add("gse", sparsity, seed, 80.0, flops=100 * (100 - more), **times)
    study.add("rigl", 0.95, 0, 80.0, flops=10_000, **times)
    study.add("gse", 0.95, 1, 80.0, flops=10, **times)  # another seed is no pair
    study.add("gse", 0.9, 0, 80.0, flops=10, epochs=99, **times)  # nor is another training
    figure = study.draw(improvement)
    (axis,) = figure.axes
    drawn = errorbars(axis)
    assert {name: values for name, (_, values) in drawn.items()} == {
        "gse (epochs=30), every 1,000 of 78,000 steps": pytest.approx([11, 21]),
        "gse, every 100 of 78,000 steps": pytest.approx([31, 41]),
    }
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["90", "98"]
    assert figure.note == "n = 2 seeds"


@pytest.mark.parametrize(
    ("times", "said"),
    [({"interval_steps": 1500}, "every 1,500 steps"), ({"updates": 20}, "20 updates")],
    ids=["interval", "updates"],
)
def test_intervals_are_said_as_they_were_set(study: Study, times: dict[str, int], said: str) -> None:
    settings = {f"schedule.{key}": value for key, value in times.items()}
    study.add("rigl", 0.9, 0, 80.0, flops=100, **settings)
    study.add("gse", 0.9, 0, 80.0, flops=80, **settings)
    assert errorbars(study.draw(improvement).axes[0]) == {f"gse, {said}": ([0], pytest.approx([20]))}


def test_allocation_has_a_group_a_method_and_a_bar_an_allocation(study: Study) -> None:
    for label, top1 in (("rigl", 80), ("gse", 84)):
        for seed in (0, 1):
            study.add(label, 0.9, seed, top1 + seed, allocation="uniform")
            study.add(label, 0.9, seed, top1 + 2 + seed)
    study.add("set", 0.9, 0, 10.0)  # one allocation alone
    figure = study.draw(allocation)
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["RigL", "GSE"]
    heights = {round(bar.get_x() + bar.get_width() / 2, 1): bar.get_height() for bar in axis.patches}
    assert heights == pytest.approx({-0.2: 80.5, 0.2: 82.5, 0.8: 84.5, 1.2: 86.5})
    hatches = [bar.get_hatch() for bar in axis.patches]
    assert hatches[:2] == hatches[2:]
    assert hatches[0] != hatches[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Uniform", "Erdős–Rényi (fan-in)"]
    assert [handle.get_hatch() for handle in legend.legend_handles] == hatches[:2]
    assert axis.get_ylim()[0] > 0


def test_allocations_of_one_name_are_not_averaged(study: Study) -> None:
    study.add("gse", 0.9, 0, 80.0, allocation="erk", **{"allocation.power": 1.0})
    study.add("gse", 0.9, 0, 82.0, allocation="erk", **{"allocation.power": 2.0})
    assert study.draw(allocation) is None


def test_width_has_a_panel_a_count_of_connections(study: Study) -> None:
    study.add("dense", 0.0, 0, 70.0, prunable=1000)
    study.add("dense", 0.0, 0, 99.0, prunable=4000, **{"model.width": 2.0})
    study.add("gse", 0.75, 0, 72.0, prunable=4000, **{"model.width": 2.0})
    study.add("gse", 0.8888, 0, 74.0, prunable=9000, **{"model.width": 3.0})  # 1,001 connections
    study.add("gse", 0.9, 0, 60.0, prunable=1000)
    figure = study.draw(width)
    (axis,) = figure.axes
    assert axis.get_title() == "ResNet-56, CIFAR-10, 1,000 connections"
    assert errorbars(axis) == {"gse": ([1, pytest.approx(log2(3))], [72, 74])}
    assert level_of(axis, "dense") == 70
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "3"]


def test_one_width_is_no_figure(study: Study) -> None:
    study.add("dense", 0.0, 0, 70.0, prunable=1000)
    study.add("gse", 0.9, 0, 60.0, prunable=1000)
    study.add("gse", 0.9, 0, 60.0, prunable=4000, **{"model.width": 2.0})
    assert study.draw(width) is None
