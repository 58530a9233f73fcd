"""A run's identity, and files that are whole or absent."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dstrun.config.composition import compose
from dstrun.record.folder import RunFolder, label, run_id
from dstrun.record.writer import Rows, sweep_left_over
from dstrun.system.whole import write_atomic


def identify(*words: str) -> str:
    experiment = compose(["model=mlp", "dataset=digits", *words])
    return run_id(experiment.config, experiment.choices)


def test_id_is_readable_and_the_same_for_ever() -> None:
    assert identify("sparsity=0.98", "seed=3").startswith("mlp-digits-gse-s0.98-seed3-")
    assert identify() == identify()


@pytest.mark.parametrize(
    "word",
    [
        "experiment=other",
        "results=elsewhere",
        "wandb=disabled",
        "threads=1",
        "checkpoint.every_minutes=1",
        "sparsity=0.90",
        "grow=gse",
    ],
)
def test_what_cannot_change_a_result_is_not_in_the_id(word: str) -> None:
    assert identify(word) == identify()


@pytest.mark.parametrize(
    "word",
    ["seed=1", "epochs=3", "grow.gamma=2", "optimizer.lr=0.2", "scope=global", "dataset.limit=500", "device=cpu"],
)
def test_what_can_change_a_result_is(word: str) -> None:
    assert identify(word) != identify()


def test_data_paths_are_not_in_the_id() -> None:
    ids = set()
    for words in ([], ["dataset.root=/a"], ["dataset.download=false"]):
        experiment = compose(["dataset=cifar10", *words])
        ids.add(run_id(experiment.config, experiment.choices))
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "gse"),
        ("grow=random", "random"),
        ("subset=grabo", "gse-grabo"),
        ("method=rigl", "rigl"),
        ("method=gse subset=graest", "gse-graest"),
        ("method=static", "static"),
    ],
)
def test_label_is_what_a_reader_calls_the_method(words: str, expected: str) -> None:
    assert label(compose(words.split()).choices) == expected


def test_a_replaced_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "new"


def test_rows_are_cut_back_and_a_broken_last_one_is_dropped(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "r.csv", ("step", "value"))
    rows.restart(0)
    rows.append([{"step": s, "value": s * 1.5} for s in range(5)] + [{"step": 5, "value": None}])
    with open(rows.path, "a") as file:
        file.write("6")
    rows.restart(3)
    with open(rows.path, newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": str(s), "value": str(s * 1.5)} for s in range(4)]


def test_folder_stands_below_experiment(tmp_path: Path) -> None:
    experiment = compose(["model=mlp", f"results={tmp_path}", "experiment=a/b"])
    folder = RunFolder(experiment.config, experiment.choices)
    assert folder.path == tmp_path / "a" / "b" / folder.id
    with folder.owned():
        assert folder.path.is_dir()


def test_a_note_that_a_dead_process_took_away_is_removed_at_once_where_nobody_else_can(tmp_path: Path) -> None:
    experiment = compose(["model=mlp", "dataset=digits", f"results={tmp_path}"])
    folder = RunFolder(experiment.config, experiment.choices)
    folder.path.mkdir(parents=True)
    taken = folder.path / ".owner.0123"
    taken.touch()
    with folder.owned():
        folder.begin("", 0)
        assert sorted(path.name for path in folder.path.glob(".*")) == [".lock", ".owner"]
    taken.touch()
    sweep_left_over(folder.path)  # without a lock of the kernel it may be somebody's
    assert taken.exists()
