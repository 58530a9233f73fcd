"""Tables by rows, columns and values of one's own, and what they set beside a number."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write, write_status

from dstrun.report import load, table
from dstrun.report.table.cells import Options
from dstrun.system.trouble import ConfigError


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def body(built: table.Table) -> list[list[str]]:
    """The heading and the rows of each part, cell by cell."""
    return [cells_of(line) for line in built.render().splitlines() if line.startswith("|") and "---" not in line]


def two_models(tmp_path: Path, **changes: Any) -> list[load.Run]:
    for model in ("resnet56", "vgg16"):
        for label, top1 in (("set", 80.0), ("gse", 82.0)):
            for seed in range(2):
                write(tmp_path, record_of(label, 0.9, seed, top1 + seed, model=model, **changes))
    return load.runs(tmp_path)


def test_columns_of_several_fields(tmp_path: Path) -> None:
    built = table.build(two_models(tmp_path), options=Options(rows="method", columns="model,sparsity"))
    assert body(built) == [
        ["method", "resnet56 90%", "vgg16 90%"],
        ["set", "80.5 ± 0.7 (2)", "80.5 ± 0.7 (2)"],
        ["gse", "**82.5 ± 0.7** (2)", "**82.5 ± 0.7** (2)"],
    ]
    assert built.parts[0][0] == "cifar10 (test)"
    cell = json.loads(built.render("json"))[0]
    assert (cell["model"], cell["sparsity"], cell["n"]) == ("resnet56", 0.9, 2)


def test_what_is_no_row_and_no_column_is_never_averaged(sweep: list[load.Run]) -> None:
    names = [row[0] for row in body(table.build(sweep, options=Options(columns="")))]
    assert names[1:5] == ["dense", "set (sparsity=0.9)", "set (sparsity=0.95)", "set (sparsity=0.98)"]
    assert all(cell["n"] <= 3 for cell in table.build(sweep, options=Options(columns="")).cells)


def test_a_setting_that_differs_in_one_column_splits_the_row(tmp_path: Path) -> None:
    runs = two_models(tmp_path)
    for seed in range(2):
        write(tmp_path, record_of("gse", 0.9, seed, 90.0, model="vgg16", epochs=60), folder=f"long{seed}")
    runs = load.runs(tmp_path)
    rows = body(table.build(runs, options=Options(columns="model")))[1:]
    assert rows == [
        ["set", "80.5 ± 0.7 (2)", "80.5 ± 0.7 (2)"],
        ["gse (epochs=30)", "**82.5 ± 0.7** (2)", "82.5 ± 0.7 (2)"],
        ["gse (epochs=60)", "-", "**90.0 ± 0.0** (2)"],
    ]


def test_a_setting_as_a_column_does_not_split(tmp_path: Path) -> None:
    for epochs in (30, 60):
        for label in ("set", "gse"):
            write(tmp_path, record_of(label, 0.9, 0, 80.0 + epochs / 10, epochs=epochs), folder=f"{label}{epochs}")
    built = table.build(load.runs(tmp_path), options=Options(columns="epochs"))
    assert body(built) == [["method", "30", "60"], ["set", "**83.0** (1)", "**86.0** (1)"],
                           ["gse", "**83.0** (1)", "**86.0** (1)"]]  # fmt: skip
    assert "training differs" not in built.render()


def test_rows_trained_otherwise_are_told_of(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 80.0, epochs=30))
    write(tmp_path, record_of("rigl", 0.9, 0, 80.0, epochs=30))
    write(tmp_path, record_of("gse", 0.9, 0, 80.0, epochs=60, batch_size=64))
    assert (
        "- resnet56 on cifar10 (test): training differs: batch_size 128 (set, rigl), 64 (gse); "
        "epochs 30 (set, rigl), 60 (gse)"
    ) in table.build(load.runs(tmp_path)).render()


def test_rows_without_a_choice_say_what_sets_them_apart(tmp_path: Path) -> None:
    runs = two_models(tmp_path)
    rows = body(table.build(runs, options=Options(rows="sparsity", columns="model")))
    assert [row[:2] for row in rows] == [
        ["sparsity", ""],
        ["90%", "grow=gse, subset=uniform, schedule=cosine"],
        ["90%", "grow=random, schedule=constant"],
    ]


def test_several_values(sweep: list[load.Run]) -> None:
    built = table.build(sweep, options=Options(values="accuracy.top1,flops.train", columns="sparsity"))
    heading, dense, *_ = body(built)
    assert heading[:5] == ["method", "dense top-1", "dense train FLOPs", "90% top-1", "90% train FLOPs"]
    assert dense[1:4] == ["93.0 ± 0.1 (3)", "1.10e15", "-"]


def test_a_value_that_is_no_number_is_refused(sweep: list[load.Run]) -> None:
    with pytest.raises(ConfigError, match=r"value=memory\.how is not a number: in these runs it is cpu allocator"):
        table.build(sweep, options=Options(values="memory.how"))


def test_intervals(sweep: list[load.Run]) -> None:
    built = table.build(sweep, options=Options(interval=True))
    assert "90.4 ± 0.7 (3)" in built.render()  # 2.484 x 0.3
    assert "half the 95 % confidence interval" in built.render()
    cell = next(c for c in built.cells if (c["method"], c["sparsity"]) == ("set", 0.9))
    assert (cell["std"], cell["interval"]) == (pytest.approx(0.3), pytest.approx(0.745, abs=1e-3))


def test_significance(sweep: list[load.Run]) -> None:
    lines = table.build(sweep, options=Options(significant=True)).render().splitlines()
    bold = {cells_of(line)[0]: [cell.startswith("**") for cell in cells_of(line)[2:]] for line in lines[4:8]}
    # set against gse: p = 0.029 at 90 %, which among two rivals is no evidence, and 0.014 at 95 %.
    assert bold == {"dense": [False] * 3, "set": [True, False, True], "rigl": [True] * 3, "gse": [True] * 3}
    assert any("Holm, 5 %" in line for line in lines)


def test_significance_tells_a_clear_loser(tmp_path: Path) -> None:
    for label, tops in {"set": (80.0, 80.1, 80.3), "rigl": (84.9, 85.3, 85.0), "gse": (85.0, 85.1, 85.2)}.items():
        for seed, top1 in enumerate(tops):
            write(tmp_path, record_of(label, 0.9, seed, top1))
    rows = body(table.build(load.runs(tmp_path), options=Options(significant=True)))[1:]
    assert [(name, cell.startswith("**")) for name, cell in rows] == [("set", False), ("rigl", True), ("gse", True)]


def test_difference_to_dense(sweep: list[load.Run]) -> None:
    built = table.build(sweep, options=Options(against="dense"))
    assert " 90.4 ± 0.3 (3) [-2.6] |" in built.render()
    assert "| 93.0 ± 0.1 (3) |" in built.render()
    cell = next(c for c in built.cells if (c["method"], c["sparsity"]) == ("set", 0.9))
    assert cell["difference"] == pytest.approx(-2.6)


def test_difference_only_to_what_was_trained_alike(tmp_path: Path) -> None:
    write(tmp_path, record_of("dense", 0.0, 0, 93.0, epochs=60))
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    assert table.build(load.runs(tmp_path), options=Options(against="dense")).cells[1]["difference"] is None


def test_an_ambiguous_reference_is_none(tmp_path: Path) -> None:
    for i, power in enumerate((2.0, 3.0)):
        write(tmp_path, record_of("dense", 0.0, 0, 93.0, powerprop=power), folder=f"dense{i}")
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    cells = table.build(load.runs(tmp_path), options=Options(against="dense")).cells
    assert [c["difference"] for c in cells if c["method"] == "set"] == [None]


def test_an_unknown_reference_is_told(sweep: list[load.Run]) -> None:
    with pytest.raises(ConfigError, match=r"--against dens is not a method of these runs \(did you mean dense\?\)"):
        table.build(sweep, options=Options(against="dens"))


def test_the_closest_reference_is_taken(tmp_path: Path) -> None:
    for allocation, flops in (("er_fan_in", 100), ("erk", 200)):
        for label, factor in (("rigl", 1), ("gse", 0.9)):
            record = record_of(label, 0.9, 0, 90.0, allocation=allocation)
            record["flops"]["train"] = int(factor * flops)
            write(tmp_path, record, folder=f"{label}-{allocation}")
    cells = table.build(load.runs(tmp_path), "flops").cells
    ratios = [c["mean"] for c in cells if c["value"] == "flops.train/rigl" and c["method"].startswith("gse")]
    assert ratios == [pytest.approx(0.9), pytest.approx(0.9)]


def test_runs_behind_the_cells(results: Path) -> None:
    runs = load.runs(results)
    rows = list(csv.DictReader(io.StringIO(table.build(runs).render_runs("csv"))))
    assert len(rows) == len(runs)
    row = next(r for r in rows if (r["method"], r["sparsity"], r["seed"]) == ("gse", "0.98", "1"))
    assert (row["accuracy.top1"], row["state"]) == ("87.5", "done")
    assert json.loads((Path(row["run"]) / "record.json").read_text())["accuracy"]["top1"] == 87.5
    assert [(r["state"], r["run"].split("/")[-1]) for r in rows if r["state"] != "done"] == [
        ("failed", "resnet56-cifar10-gse-s0.98-seed2-77aa01")
    ]


def test_long_names_are_numbered(tmp_path: Path) -> None:
    for i in (1, 2):
        changes = {"epochs": 10 * i, "batch_size": 32 * i, "label_smoothing": i / 10, "powerprop": float(i + 1)}
        write(tmp_path, record_of("gse", 0.9, 0, 80.0 + i, **changes), folder=str(i))
    built = table.build(load.runs(tmp_path))
    assert [row[0] for row in body(built)] == ["method", "gse (1)", "gse (2)"]
    assert "- gse (1): batch_size=32, epochs=10, label_smoothing=0.1, powerprop=2.0" in built.render()
    assert built.cells[1]["method"].startswith("gse (batch_size=64")


def test_unfinished_runs_have_rows_of_their_sparsity(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write_status(tmp_path, "resnet56-cifar10-set-s0.98-seed0-aaaaaa", "running")
    write_status(tmp_path, "resnet56-cifar10-set-s0.9-seed1-aaaaaa", "running")
    rows = body(table.build(load.runs(tmp_path), "cost"))[1:]
    assert [row[:3] for row in rows] == [["set", "90%", "90.0 (1 of 2)†"], ["set", "98%", "- †"]]


def test_a_column_of_the_value_one_is_no_sparsity_that_emerged(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, record_of("gse", 0.9, seed, 80.0 + seed))  # with gamma 1.0
        write(tmp_path, record_of("set", 0.9, seed, 79.0 + seed))
    text = table.build(load.runs(tmp_path), options=Options(columns="grow.gamma")).render()
    assert "| gse    | 80.5 ± 0.7 (2) |" in text
    assert "emerge" not in text
