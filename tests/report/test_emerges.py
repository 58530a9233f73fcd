"""Runs whose sparsity training found: neither dense nor at a sparsity that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_fixture import record_of, write, write_status

from dstrun.report import load, table
from dstrun.report.figure import sheet
from dstrun.report.figure.kind import curves, sparsity
from dstrun.report.table.notes import EMERGED


@pytest.fixture
def runs(tmp_path: Path) -> list[load.Run]:
    """Two seeds of str that ended at 89 and 91 %, one still running; gse at 90 %; dense."""
    for seed, reached in enumerate((0.89, 0.91)):
        record = record_of("str", 0.0, seed, 90.0 + seed, method="str", prune=None, allocation=None, schedule=None)
        record["parameters"]["sparsity"] = reached
        write(tmp_path, record)
    for seed in range(3):
        write(tmp_path, record_of("gse", 0.9, seed, 91.0))
    write(tmp_path, record_of("dense", 0.0, 0, 93.0))
    write_status(tmp_path, "resnet56-cifar10-str-s0-seed2-aaaaaa", "running")
    return load.runs(tmp_path)


def test_they_have_a_column_of_their_own_and_say_what_they_reached(runs: list[load.Run]) -> None:
    text = table.build(runs).render("md")
    assert "| method |         dense |            90% |                       emerges |" in text
    assert "| str    |             - |              - | 90.5 ± 0.7 (2 of 3)† at 90.0% |" in text
    assert f"- {EMERGED}" in text
    assert "**" not in text
    assert r"$90.5 \pm 0.7$ (2 of 3)$\dagger$ at 90.0\%" in table.build(runs).render("latex")


def test_programs_read_the_sparsity_reached(runs: list[load.Run]) -> None:
    (cell,) = [c for c in json.loads(table.build(runs).render("json")) if c["method"] == "str"]
    assert cell["sparsity"] == pytest.approx(0.9)
    assert cell["unfinished"] == ["resnet56-cifar10-str-s0-seed2-aaaaaa"]


def test_costs_say_it_too(runs: list[load.Run]) -> None:
    text = table.build(runs, "cost").render("md")
    assert "| 90.0% (emerged) |" in text
    assert text.count("| dense ") == 2


def test_without_one_nothing_is_said_of_it(runs: list[load.Run]) -> None:
    assert "emerges" not in table.build([run for run in runs if "-str-" not in run.id]).render("md")


def test_figures_have_them_apart(runs: list[load.Run]) -> None:
    with sheet():
        (axis, *_) = sparsity.draw(runs).axes
        assert [label.get_text() for label in axis.get_xticklabels()] == ["90", "emerges"]
        assert [text.get_text() for text in axis.texts] == ["90.0"]
        titles = [axis.get_title() for axis in curves.draw(runs).axes]
    assert titles == ["ResNet-56, CIFAR-10, 90%", "ResNet-56, CIFAR-10, emerges"]
