"""Which runs a sweep trains: each experiment's once, however it is said."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from dstrun.config.composition import compose_sweep
from dstrun.launcher.sweep import Ends, Plan, Sweep
from dstrun.launcher.task import Exit, Task
from dstrun.record import sealed

WORDS = ["model=mlp", "dataset=digits"]


class Engine:
    """Trains nothing, and leaves a record."""

    def __init__(self) -> None:
        self.trained: list[Path] = []

    outlives: ClassVar[bool] = False

    def check(self, tasks: Sequence[Task], plan: Plan) -> None: ...

    def run(self, tasks: Sequence[Task], plan: Plan) -> Ends:
        for task in tasks:
            self.trained.append(task.folder.path)
            task.folder.path.mkdir(parents=True)
            experiment = task.experiment
            record = {
                "id": task.id, "state": "done", "label": "x", "seed": experiment.config["seed"],
                "choices": dict(experiment.choices), "config": experiment.config, "accuracy": {"top1": 50.0},
            }  # fmt: skip
            sealed.write(task.folder.path / "record.json", record)
            yield task, Exit("")


def sweep(root: Path, *words: str) -> tuple[list[Path], int]:
    engine = Engine()
    found = Sweep(compose_sweep([*WORDS, f"results={root}", *words]), engine, "local").run()
    assert all(ending.state == "done" for ending in found)
    return engine.trained, len(found)


def test_a_run_in_two_spellings_trains_once_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trained, ended = sweep(tmp_path, "optimizer.weight_decay=0,0.0,-0.0,0e0,0.00")
    assert (len(trained), ended) == (1, 1)
    said = capsys.readouterr().err
    assert "optimizer.weight_decay=0.0 is the same run as another: it trains once\n" in said
    assert "... and 1 more\n1 run\n" in said


def test_what_nothing_reads_starts_no_run(tmp_path: Path) -> None:
    trained, _ = sweep(tmp_path, "schedule.updates=3", "schedule.recipe_interval_steps=10,20,30")
    assert len(trained) == 1


def test_two_experiments_are_trained_in_both(tmp_path: Path) -> None:
    trained, ended = sweep(tmp_path, "experiment=a,b")
    assert sorted(folder.parent.name for folder in trained) == ["a", "b"]
    assert ended == 2
    plans = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*/.sweeps/*.json"))]
    assert [plan["runs"] for plan in plans] == [[{"id": trained[0].name, "job": None}]] * 2


def test_what_killed_processes_left_beside_a_record_is_cleaned_up(tmp_path: Path) -> None:
    words = compose_sweep([*WORDS, f"results={tmp_path}"])
    folder = Task(words[0]).folder.path
    sweep(tmp_path)
    left = [".status.json.node.7.tmp", ".owner.abc", ".now.abc", "checkpoint.previous.pt"]
    for name in [*left, "checkpoint.pt", ".config.yaml.node.8.tmp"]:
        (folder / name).touch()
    for name in left:
        os.utime(folder / name, (0, 0))
    Sweep(words, Engine(), "local").run()
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "checkpoint.pt", "record.json"]
