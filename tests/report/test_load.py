from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from report_fixture import HEADER, record_of, write, write_status

from dstrun.record.folder import METRICS, RunFolder
from dstrun.record.lock import SILENT_SECONDS
from dstrun.report import load
from dstrun.system.trouble import ConfigError

CHOICES: dict[str, str | None] = {"model": "mlp", "dataset": "digits", "method": "static", "grow": None, "subset": None}


def test_root_experiment_and_run_are_all_accepted(results: Path) -> None:
    write(results, record_of("set", 0.9, 0, 90.0, experiment="paper/table2"))
    assert len(load.runs(results)) == 31
    assert len(load.runs(results / "default")) == 30
    assert len(load.runs(results / "paper")) == 1
    (run,) = load.runs(results / "paper" / "table2" / "resnet56-cifar10-set-s0.9-seed0-3f9c2a")
    assert (run.id, run.done, run.seed, run.sparsity, run.top1) == (
        "resnet56-cifar10-set-s0.9-seed0-3f9c2a", True, 0, 0.9, 90.0,
    )  # fmt: skip


def test_a_run_folder_is_not_searched(results: Path) -> None:
    run = next((results / "default").iterdir())
    write_status(run, "inner", "done")
    assert len(load.runs(results)) == 30


def test_seeds_sort_as_numbers(tmp_path: Path) -> None:
    for seed in (10, 2, 1):
        write(tmp_path, record_of("set", 0.9, seed, 90.0))
    assert [run.seed for run in load.runs(tmp_path)] == [1, 2, 10]


def test_links_are_followed_once(results: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "scratch").symlink_to(results)
    (results / "circle").symlink_to(tmp_path / "linked")
    assert len(load.runs(tmp_path / "linked")) == 30


def test_a_record_alone_is_a_run(tmp_path: Path) -> None:
    (write(tmp_path, record_of("set", 0.9, 0, 90.0)) / "status.json").unlink()
    assert [run.done for run in load.runs(tmp_path)] == [True]


def test_the_record_of_another_run_is_no_record(tmp_path: Path) -> None:
    mine, other = (record_of("set", 0.9, seed, 90.0) for seed in (0, 1))
    name = "set-s0.9-seed0-0123456789abcdef"
    (run,) = load.runs(write(tmp_path / "a", mine | {"id": name}, name))
    assert run.done
    folder = write(tmp_path / "b", other, name)
    (folder / "status.json").unlink()
    (run,) = load.runs(folder)
    assert not run.done
    assert "that of another run" in run.warnings[0]
    (run,) = load.runs(write(tmp_path, other, "the best one"))
    assert run.done


def test_a_run_without_record_is_not_done(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "done")
    write_status(tmp_path, "b", "interrupted")
    assert [(run.state, run.done) for run in load.runs(tmp_path)] == [("damaged", False), ("interrupted", False)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema": 1, "id', "is damaged: not JSON"),
        ("[]", "not a JSON object"),
        ("\xff", "is damaged: not UTF-8"),
        ('{"schema": 0}', "it has schema 0, and this version reads 2 and older"),
        ('{"schema": 1, "state": "done"}', "it lacks id"),
    ],
)
def test_damage_is_told_of_and_skipped(tmp_path: Path, text: str, sentence: str) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.0))
    write(tmp_path, record_of("set", 0.9, 1, 90.0))
    (folder / "record.json").write_text(text, encoding="latin-1")
    found = load.runs(tmp_path)
    assert [run.state for run in found] == ["damaged", "done"]
    (warning,) = load.warnings(found)
    assert sentence in warning
    assert str(folder / "record.json") in warning
    assert warning.endswith(": skipped")


def test_both_files_damaged_still_make_a_row(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "status.json").write_text("{")
    (tmp_path / "broken" / "record.json").write_text("{")
    (run,) = load.runs(tmp_path)
    assert (run.id, run.state, len(run.warnings)) == ("broken", "damaged", 2)


def test_a_diverged_accuracy_is_no_result(tmp_path: Path) -> None:
    write(tmp_path, record_of("set", 0.9, 0, float("nan")))
    (run,) = load.runs(tmp_path)
    assert run.top1 is None
    assert not run.done


def test_a_missing_folder_is_named(results: Path) -> None:
    with pytest.raises(ConfigError, match=r"reslts is not a folder \(did you mean results\?\)"):
        load.runs(results.parent / "reslts")


def test_an_empty_folder_has_no_runs(tmp_path: Path) -> None:
    assert load.runs(tmp_path) == []


def test_a_folder_that_cannot_be_read_is_said(results: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    all_runs, listed = load.runs(results), os.scandir
    shut = str(all_runs[0].folder)

    def scandir(folder: str) -> Any:
        if folder == shut:
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [run.folder for run in load.runs(results)] == [run.folder for run in all_runs[1:]]
    assert f"{shut} cannot be read (Permission denied): runs in it are left out" in capsys.readouterr().err


def test_heartbeats_grow_old(tmp_path: Path) -> None:
    write_status(tmp_path, "a", "running", heartbeat=1000.0)
    write_status(tmp_path, "b", "failed", heartbeat=1000.0)
    write_status(tmp_path, "c", "running")
    found = load.runs(tmp_path)
    assert [run.state_at(1000.0 + SILENT_SECONDS) for run in found] == ["running", "failed", "lost"]
    assert [run.state_at(1000.5 + SILENT_SECONDS) for run in found] == ["lost", "failed", "lost"]


def test_metrics_are_typed_and_a_cut_line_is_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path, record_of("set", 0.9, 0, 90.0))
    (run,) = load.runs(tmp_path)
    assert len(load.metrics(run)) == 30
    whole = "{},391,1.5,1.4,{},99.0,0.1,31.7,1000,64000000,,test\n"
    # Epoch 2 was written, killed and written again; the last line has all its fields but half of the last.
    text = (
        f"{HEADER}\n{whole.format(1, 50.5)}{whole.format(2, 51)}3,39\n{whole.format(2, 52)}{whole.format(3, 53)[:-3]}"
    )
    (folder / "metrics.csv").write_text(text)
    rows = load.metrics(run)
    assert [(row["epoch"], row["top1"]) for row in rows] == [(1, 50.5), (2, 52)]
    assert rows[0] == {
        "epoch": 1, "step": 391, "train_loss": 1.5, "loss": 1.4, "top1": 50.5, "top5": 99.0, "lr": 0.1, "seconds": 31.7,
        "flops": 1000, "peak_bytes": 64000000, "resident_peak_bytes": None, "split": "test",
    }  # fmt: skip
    # A continued run may have begun before: rows are in the order of epochs, and an odd word costs its cell alone.
    (folder / "metrics.csv").write_text(f"{HEADER}\n{whole.format(2, 'odd')}{whole.format(1, '')}")
    assert load.metric_columns(run, ("epoch", "top1")) == {"epoch": [1, 2], "top1": [None, "odd"]}
    (folder / "metrics.csv").write_text("epo")
    assert load.metrics(run) == []
    (folder / "metrics.csv").unlink()
    assert load.metrics(run) == []


def test_rows_of_an_unfinished_run_are_believed_as_far_as_its_status_vouches(tmp_path: Path, capsys) -> None:
    folder = RunFolder({"results": tmp_path, "experiment": "e", "sparsity": 0.5, "seed": 0}, CHOICES)
    folder.path.mkdir(parents=True)
    folder.metrics.restart(0)
    folder.topology.restart(0)
    folder.metrics.append([dict.fromkeys(METRICS, 1)])
    folder.status(state="running", epoch=1)
    folder.metrics.append([dict.fromkeys(METRICS, 2)])
    (run,) = load.runs(folder.path)
    assert [row["epoch"] for row in load.metrics(run)] == [1]
    assert not capsys.readouterr().err
    file = folder.path / "metrics.csv"
    file.write_bytes(file.read_bytes().replace(b"\n1,1,1,1,", b"\n1,1,1,7,"))
    load.metrics(run)
    assert f"{file} is damaged: its checksum does not match" in capsys.readouterr().err


def test_thousands_of_folders(tmp_path: Path) -> None:
    text = json.dumps(record_of("set", 0.9, 0, 90.0))
    for i in range(2000):
        folder = tmp_path / f"exp{i % 7}" / f"run{i}"
        folder.mkdir(parents=True)
        (folder / "status.json").write_text('{"state": "done"}')
        (folder / "record.json").write_text(text.replace('"seed": 0', f'"seed": {i}'))
    found = load.runs(tmp_path)
    assert all(run.done for run in found)
    assert {run.seed for run in found} == set(range(2000))


@pytest.mark.parametrize(
    "names",
    [
        ["s0.9-seed2", "s0.9-seed10", "s0.98-seed0"],
        ["gse (grow.gamma=0.25)", "gse (grow.gamma=0.5)", "gse (grow.gamma=2)"],
        ["torch 2.9.0", "torch 2.15.0"],
    ],
    ids=["runs", "decimals", "versions"],
)
def test_names_are_sorted_as_people_read_them(names: list[str]) -> None:
    assert sorted(reversed(names), key=load.natural) == names
