from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_fixture import record_of, write

from dstrun.report import load
from dstrun.report.compare import blocks
from dstrun.report.figure.series import too_many


def names(root: Path, *changes: dict[str, Any], label: str = "gse") -> list[str]:
    """Write a run for each set of changes, a seed each, and name the rows they fall into."""
    for seed, change in enumerate(changes):
        write(root, record_of(label, 0.98, seed, 87.0, **change), folder=str(seed))
    return [row.name for block in blocks(load.runs(root)) for row in block.rows]


def test_only_seeds_differ(tmp_path: Path) -> None:
    assert names(tmp_path, {}, {}) == ["gse"]


@pytest.mark.parametrize(
    "change",
    [{"experiment": "other"}, {"results": "/scratch"}, {"wandb": "offline"}, {"threads": 4}, {"devices": 2}],
)
def test_what_cannot_change_the_result_is_free(tmp_path: Path, change: dict[str, Any]) -> None:
    assert names(tmp_path, {}, change) == ["gse"]


def test_a_setting_splits_and_is_named(tmp_path: Path) -> None:
    assert names(tmp_path, {"epochs": 8}, {"epochs": 4}, {"epochs": 12}) == [
        "gse (epochs=4)", "gse (epochs=8)", "gse (epochs=12)",
    ]  # fmt: skip


def test_defaults_of_many_settings_are_not_named(tmp_path: Path) -> None:
    found = names(
        tmp_path, {}, {"activations": "int8"}, {"checkpointing": "block", "state": "int8"}, {"microbatch": 10}
    )
    assert found == [
        "gse", "gse (activations=int8)", "gse (checkpointing=block, state=int8)", "gse (microbatch=10)",
    ]  # fmt: skip
    rows = [row for block in blocks(load.runs(tmp_path)) for row in block.rows]
    assert rows[0].apart == {"activations": "full", "checkpointing": "none", "state": "fp32"}
    assert "where=config.state:VALUE (fp32, int8)" in too_many(rows)


def test_a_nested_setting_splits_and_is_named(tmp_path: Path) -> None:
    record = record_of("gse", 0.98, 1, 87.0)
    record["config"]["model"]["width"] = 2.0
    write(tmp_path, record)
    assert names(tmp_path, {}) == ["gse (model.width=1.0)", "gse (model.width=2.0)"]


def test_a_choice_is_named_and_not_what_it_brings(tmp_path: Path) -> None:
    assert names(tmp_path, {"allocation": "er_fan_in"}, {"allocation": "erk"}, label="rigl") == [
        "rigl (allocation=er_fan_in)", "rigl (allocation=erk)",
    ]  # fmt: skip


def test_a_setting_beside_a_choice_is_not_hidden(tmp_path: Path) -> None:
    assert names(tmp_path, {"allocation": "er_fan_in", "epochs": 4}, {"allocation": "erk", "epochs": 8}) == [
        "gse (allocation=er_fan_in, epochs=4)", "gse (allocation=erk, epochs=8)",
    ]  # fmt: skip


def test_copies_of_a_group_are_named_once(tmp_path: Path) -> None:
    assert names(tmp_path, {"subset": "uniform"}, {"subset": "grabo"}) == [
        "gse (subset=grabo)", "gse (subset=uniform)",
    ]  # fmt: skip


def test_a_setting_that_is_a_choice_too_is_named_once(tmp_path: Path) -> None:
    assert names(tmp_path, {"precision": "fp32"}, {"precision": "bf16"}) == [
        "gse (precision=bf16)", "gse (precision=fp32)",
    ]  # fmt: skip


def test_the_same_training_by_preset_and_by_parts_is_one_row(tmp_path: Path) -> None:
    parts, preset = record_of("gse", 0.98, 0, 87.0), record_of("gse", 0.98, 1, 87.0)
    preset["choices"]["method"] = "gse"
    write(tmp_path, parts)
    write(tmp_path, preset)
    assert [row.name for block in blocks(load.runs(tmp_path)) for row in block.rows] == ["gse"]


def test_two_presets_are_named_with_top_level_settings(tmp_path: Path) -> None:
    parts, preset = record_of("rigl", 0.98, 0, 87.0, epochs=200), record_of("rigl", 0.98, 1, 87.0, epochs=250)
    preset["choices"] |= {"method": "rigl", "allocation": "erk"}
    preset["config"]["schedule"]["fraction"] = 0.3
    write(tmp_path, parts)
    write(tmp_path, preset)
    assert [row.name for block in blocks(load.runs(tmp_path)) for row in block.rows] == [
        "rigl (method=dst, allocation=er_fan_in, epochs=200)", "rigl (method=rigl, allocation=erk, epochs=250)",
    ]  # fmt: skip


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    write(tmp_path, record_of("gse", 0.98, 0, 87.0))
    write(tmp_path, record_of("gse", 0.98, 0, 87.0, experiment="second"))
    ((row,),) = [block.rows for block in blocks(load.runs(tmp_path))]
    assert len(row.cells[0.98]) == 1
    assert len(row.repeated) == 1


def test_blocks_part_models_data_and_splits(tmp_path: Path) -> None:
    for i, change in enumerate([{}, {"model": "vgg16"}, {"dataset": "cifar100"}]):
        write(tmp_path, record_of("gse", 0.98, 0, 87.0, **change), folder=str(i))
    validated = record_of("gse", 0.98, 0, 87.0)
    validated["accuracy"]["split"] = "validation"
    write(tmp_path, validated)
    assert [block.title for block in blocks(load.runs(tmp_path))] == [
        "resnet56 on cifar10 (test)", "resnet56 on cifar10 (validation)", "resnet56 on cifar100 (test)",
        "vgg16 on cifar10 (test)",
    ]  # fmt: skip
