"""Fields by the names users know, and conditions on runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_fixture import record_of, write, write_status

from dstrun.report import load
from dstrun.report.fields import resolve, where
from dstrun.system.trouble import ConfigError


def kept(runs: list[load.Run], *conditions: str) -> list[tuple[str, float]]:
    return sorted({(run.get("label"), run.sparsity) for run in where(runs, conditions) if run.done})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("method", "label"),
        ("model", "choices.model"),
        ("sparsity", "sparsity"),
        ("epochs", "config.epochs"),
        ("model.width", "config.model.width"),
        ("grow.gamma", "config.grow.gamma"),
        ("accuracy.top1", "accuracy.top1"),
        ("top1", "accuracy.top1"),
        ("split", "accuracy.split"),
        ("gamma", "config.grow.gamma"),
    ],
)
def test_a_field_by_its_name(sweep: list[load.Run], name: str, key: str) -> None:
    assert resolve(name, sweep, "rows=").key == key


def test_a_name_that_several_keys_end_with_is_refused(sweep: list[load.Run]) -> None:
    with pytest.raises(ConfigError, match=r"value=train may be flops\.train, seconds\.train: name one of them"):
        resolve("train", sweep, "value=")


def test_an_unknown_name_is_told_with_the_nearest(sweep: list[load.Run]) -> None:
    with pytest.raises(ConfigError, match=r"rows=metod is not a field of these runs \(did you mean method\?\)"):
        resolve("metod", sweep, "rows=")


def test_conditions(sweep: list[load.Run]) -> None:
    assert kept(sweep, "method:gse,rigl", "sparsity:0.98") == [("gse", 0.98), ("rigl", 0.98)]
    assert kept(sweep, "method!:gse,rigl", "sparsity>0.9") == [("set", 0.95), ("set", 0.98)]
    assert kept(sweep, "sparsity<=0") == [("dense", 0.0)]
    assert kept(sweep, "method:*g*e", "sparsity>=0.980", "accuracy.top1>87") == [("gse", 0.98)]
    assert kept(sweep, "seed:7") == []
    assert len(where(sweep, [])) == len(sweep)


def test_nothing_and_truth_values_can_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, record_of("dense", 0.0, 0, 90.0))
    write(tmp_path, record_of("gse", 0.9, 0, 90.0, strict=True))
    runs = load.runs(tmp_path)
    assert kept(runs, "grow.gamma:null") == [("dense", 0.0)]
    assert kept(runs, "strict:true") == [("gse", 0.9)]
    assert kept(runs, "strict!:true") == [("dense", 0.0)]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("method", "where=method is not a condition: write where=FIELD:VALUE,VALUE or where=FIELD>=VALUE"),
        ("sparsity>much", "where=sparsity>much compares with much, which is not a number"),
        ("methd:gse", r"where=methd is not a field of these runs \(did you mean method\?\)"),
    ],
)
def test_what_is_no_condition_is_told(sweep: list[load.Run], condition: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        where(sweep, [condition])


def test_the_setting_of_the_optimizer_is_no_state_of_a_run(tmp_path: Path) -> None:
    for seed, state in enumerate(("fp32", "int8")):
        write(tmp_path, record_of("gse", 0.98, seed, 87.0, state=state))
    runs = load.runs(tmp_path)
    assert len(where(runs, ["state:done"])) == 2
    assert len(where(runs, ["config.state:int8"])) == 1
    with pytest.raises(ConfigError, match=r"state is the state of a run; write where=config\.state:int8"):
        where(runs, ["state:int8"])


def test_unfinished_runs_are_known_by_name_and_by_their_configuration(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write_status(tmp_path, "resnet56-cifar10-gse-s0.98-seed2-77aa01", "failed")
    folder = write_status(tmp_path, "resnet56-cifar10-gse-s0.98-seed3-77aa02", "failed")
    record = record_of("gse", 0.98, 3, 0.0, epochs=60)
    (folder / "config.yaml").write_text(yaml.safe_dump({"choices": record["choices"], **record["config"]}))
    runs = load.runs(tmp_path)
    assert [run.id[-6:] for run in where(runs, ["method:gse", "sparsity:0.98"])] == ["77aa01", "77aa02"]
    assert [run.id[-6:] for run in where(runs, ["epochs:60"])] == ["77aa02"]
    assert [run.state for run in where(runs, ["state:failed"])] == ["failed", "failed"]


def test_a_damaged_configuration_is_no_traceback(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, 90.0))
    folder = write_status(tmp_path, "resnet56-cifar10-gse-s0.98-seed2-77aa01", "failed")
    for text in ("choices: [", "3", "choices: {}\n"):
        (folder / "config.yaml").write_text(text)
        assert len(where(load.runs(tmp_path), ["epochs:30"])) == 1


def test_lists_are_fields_and_sort_among_numbers(tmp_path: Path) -> None:
    """``model.hidden=[300,100]`` labels rows, and a setting may be a number in one run and a list in another."""
    from dstrun.cli.main import main

    for seed, depth in enumerate((4, [50, 20], [300, 100], 3)):
        write(tmp_path, record_of("gse", 0.9, seed, 90.0, **{"model.depth": depth}) | {"id": f"run{seed}"})
    runs = load.runs(tmp_path)
    field = resolve("model.depth", runs, "rows=")
    values = [field.of(run) for run in runs]
    assert [field.text(value) for value in sorted(values, key=field.rank)] == ["3", "4", "[50, 20]", "[300, 100]"]
    for asked, count in (("model.depth:[50,20]", 1), ("model.depth:4,[300, 100]", 2), ("model.depth!:[50, 20]", 3)):
        assert len(where(runs, [asked])) == count
    for words in (["rows=model.depth"], ["rows=method", "cols=model.depth"], ["rows=depth", "where=depth:[50,20]"]):
        assert main(["table", str(tmp_path), *words]) == 0
