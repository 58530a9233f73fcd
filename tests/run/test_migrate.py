"""Runs of older versions get the ids under which this one looks for them, and nothing else happens to them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dstrun.cli.main import main
from dstrun.config.composition import compose
from dstrun.record import sealed
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Lock
from dstrun.report import load, status
from dstrun.run import migrate

WORDS = ["model=mlp", "dataset=digits", "epochs=2"]
OLD = "mlp-digits-gse-s0.9-seed0-0123abcd"


def old_run(root: Path, *words: str, name: str = OLD, state: str = "done", **config_changes: Any) -> Path:
    """Leave a run as an older version did: an id of its own, no ``powerprop``, a class where it once was."""
    experiment = compose([*WORDS, f"results={root}", *words])
    settings = json.loads(json.dumps(experiment.config)) | config_changes
    del settings["powerprop"]
    if experiment.choices["method"] == "dst":
        settings["method"]["_target_"] = "dstrun.method.dst.DST"
    choices = {**experiment.choices, **{key: settings[key] for key in ("scope", "backend", "precision")}}
    record = {
        "schema": 1, "id": name, "state": "done", "label": "gse", "choices": choices, "config": settings, "seed": 0,
        "accuracy": {"top1": 50.0, "split": "test"}, "data": {"source": None},
    }  # fmt: skip
    place = root / "default" / name
    place.mkdir(parents=True)
    if state == "done":
        (place / "record.json").write_text(json.dumps(record))
    else:
        (place / "checkpoint.pt").write_bytes(b"a checkpoint")
    (place / "config.yaml").write_text(yaml.safe_dump({"choices": dict(experiment.choices), **settings}))
    (place / "status.json").write_text(json.dumps({"id": name, "state": state, "epoch": 1, "heartbeat": time.time()}))
    return place


def folder_of(root: Path, *words: str) -> RunFolder:
    experiment = compose([*WORDS, f"results={root}", *words])
    return RunFolder(experiment.config, experiment.choices)


def carried(root: Path) -> list[migrate.Item]:
    items = migrate.plan(load.runs(root), time.time())
    migrate.carry(items)
    return items


def test_the_same_words_find_a_carried_run_done(tmp_path: Path) -> None:
    old_run(tmp_path)
    assert folder_of(tmp_path).record() is None
    (item,) = carried(tmp_path)
    folder = folder_of(tmp_path)
    assert (item.row["migrate"], item.row["becomes"]) == ("carried", folder.id)
    record = folder.record()
    assert record is not None
    assert (record["id"], record["accuracy"]["top1"]) == (folder.id, 50.0)
    assert record["config"]["method"]["_target_"] == "dstrun.method.dynamic.dst.DST"
    assert json.loads((folder.path / "status.json").read_text())["id"] == folder.id
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["choices"] == folder.choices
    assert sorted(p.name for p in folder.path.iterdir()) == [".lock", "config.yaml", "record.json", "status.json"]
    assert [item.row["migrate"] for item in carried(tmp_path)] == ["as it is"]


def test_the_configuration_counts_and_not_how_it_was_spelled(tmp_path: Path) -> None:
    old_run(tmp_path, "optimizer.weight_decay=0")
    carried(tmp_path)
    assert folder_of(tmp_path, "optimizer.weight_decay=0.0").record() is not None


def test_an_unfinished_run_keeps_its_checkpoint(tmp_path: Path) -> None:
    old_run(tmp_path, state="interrupted")
    carried(tmp_path)
    folder = folder_of(tmp_path)
    assert folder.checkpoint.read_bytes() == b"a checkpoint"
    assert sealed.read(folder.path / "status.json") | {"heartbeat": 0} == {
        "schema": 2, "id": folder.id, "state": "interrupted", "epoch": 1, "heartbeat": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(os, "rename"), (sealed, "write"), (migrate, "write_atomic")])
def test_what_ended_between_two_writes_is_carried_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    old_run(tmp_path)
    monkeypatch.setattr(module, name, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert [item.row["migrate"] for item in carried(tmp_path)] == ["failed"]
    monkeypatch.undo()
    assert [item.row["migrate"] for item in carried(tmp_path)] == ["carried"]
    assert folder_of(tmp_path).record() is not None


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    places = [old_run(tmp_path, name=OLD.replace("abcd", end)) for end in ("aaaa", "bbbb")]
    assert [(item.row["migrate"], item.row["note"]) for item in carried(tmp_path)] == [
        ("carried", None), ("left", f"{places[0]} is the same run"),
    ]  # fmt: skip
    assert [item.row["note"] for item in carried(tmp_path) if item.row["migrate"] == "left"] == [
        f"{folder_of(tmp_path).path} is there already"
    ]
    assert places[1].is_dir()


def test_a_run_in_use_is_left(tmp_path: Path) -> None:
    place = old_run(tmp_path)
    lock = Lock(place)
    lock.acquire()
    try:
        pid = os.fork()
        if pid == 0:  # another process: a lock does not keep its own out
            left = [item.row["migrate"] for item in carried(tmp_path)]
            os._exit(0 if left == ["left"] and place.is_dir() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        lock.release()
    (place / "record.json").unlink()
    (place / "status.json").write_text(json.dumps({"id": OLD, "state": "running", "heartbeat": time.time()}))
    assert [item.row["note"] for item in carried(tmp_path)] == ["trains now"]


def test_an_unfinished_run_of_another_kind_is_left(tmp_path: Path) -> None:
    old_run(tmp_path, state="interrupted", sparsity="much")
    assert str(carried(tmp_path)[0].row["note"]).startswith("its configuration has an unknown form")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"grow": {"_target_": "dstrun.grow.lost.Lost"}}, "this version has no dstrun.grow.lost.Lost"),
        ({"prune": {"_target_": "own_prune.Mine"}}, "this version has no own_prune.Mine"),
        ({"sparsity": "much"}, "its record or status cannot be read"),
    ],
)
def test_what_cannot_be_carried_is_said(tmp_path: Path, changes: dict[str, Any], note: str) -> None:
    place = old_run(tmp_path, **changes)
    before = (place / "record.json").read_bytes()
    (item,) = carried(tmp_path)
    assert item.row["migrate"] == "left"
    assert item.row["note"].startswith(note)
    assert (place / "record.json").read_bytes() == before


def test_a_run_of_own_code_is_carried_only_with_that_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_prune.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    old_run(tmp_path, prune={"_target_": "own_prune.Mine"})
    (item,) = carried(tmp_path)
    assert item.row["note"] == "it uses your own own_prune, whose code is not on record or has changed"


def test_a_folder_that_was_named_by_hand_is_left(tmp_path: Path) -> None:
    place = old_run(tmp_path)
    place.rename(place.with_name("best"))
    (item,) = carried(tmp_path)
    assert item.row["note"] == f"its folder was named by hand: its id is {OLD}"


def test_a_sweep_that_is_over_misses_none_of_its_runs(tmp_path: Path) -> None:
    place = old_run(tmp_path)
    sweeps = place.parent / ".sweeps"
    sweeps.mkdir()
    (sweeps / "s.json").write_text(json.dumps({"ended": 1.0, "runs": [{"id": OLD, "job": None}]}))
    carried(tmp_path)
    assert [row["state"] for row in status.Sweep([tmp_path]).rows(time.time())] == ["done"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = old_run(tmp_path)
    before = {path: path.read_bytes() for path in sorted(place.iterdir())}
    assert main(["migrate", str(tmp_path), "--dry-run"]) == 0
    assert {path: path.read_bytes() for path in sorted(place.iterdir())} == before
    shown = capsys.readouterr()
    assert folder_of(tmp_path).id in shown.out
    assert shown.err == "1 would be carried; nothing was written\n"
    assert main(["migrate", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "1 carried\n"
