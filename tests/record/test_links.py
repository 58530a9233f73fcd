"""Nothing is written through a link that somebody has put into a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstrun.config.composition import compose
from dstrun.launcher.slurm import Slurm
from dstrun.launcher.sweep import Plan
from dstrun.launcher.task import Task
from dstrun.launcher.work import print_to
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Lock
from dstrun.record.writer import Rows
from dstrun.system import bounded
from dstrun.system.trouble import ConfigError
from dstrun.system.whole import write_atomic


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text("mine")
    return file


def test_files_rows_and_logs(tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "file"
    link.symlink_to(victim)
    targets = []
    monkeypatch.setattr(os, "dup2", lambda number, _: targets.append(os.readlink(f"/proc/self/fd/{number}")))
    print_to(link)
    assert targets == [os.devnull] * 2
    with pytest.raises(OSError, match="symbolic links"):
        Rows(link, ["a"]).append([{"a": 1}])
    write_atomic(link, "theirs")
    assert link.read_text() == "theirs"
    assert not link.is_symlink()
    assert victim.read_text() == "mine"


def test_the_file_beside_is_no_link_either(tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    monkeypatch.setattr(os, "fsync", lambda number: names.extend(p.name for p in tmp_path.glob(".file*")))
    write_atomic(tmp_path / "file", "one")
    (tmp_path / names[0]).symlink_to(victim)
    write_atomic(tmp_path / "file", "two")
    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "two"


@pytest.mark.parametrize("name", ["", ".lock", ".owner"])
def test_a_run_is_not_held_through_a_link(name: str, tmp_path: Path, victim: Path) -> None:
    experiment = compose(["model=mlp", "dataset=digits", f"results={tmp_path / 'results'}"])
    folder = RunFolder(experiment.config, experiment.choices)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = folder.path / name
    path.parent.mkdir(parents=True)
    path.symlink_to(victim if name else elsewhere)
    with (
        pytest.raises(ConfigError, match="symbolic link, which dstrun does not write through") as refused,
        folder.owned(),
    ):
        pass
    assert str(path) in str(refused.value)
    assert victim.read_text() == "mine"
    assert not [*elsewhere.iterdir()]


def test_a_lock_opens_no_link_that_came_meanwhile(tmp_path: Path, victim: Path) -> None:
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Lock(tmp_path).acquire()
    assert victim.read_text() == "mine"


def test_a_sweep_writes_through_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = compose(["model=mlp", "dataset=digits", f"results={tmp_path / 'results'}"])
    elsewhere, task = tmp_path / "elsewhere", Task(experiment)
    elsewhere.mkdir()
    place = task.folder.path.parent
    place.mkdir(parents=True)
    (place / ".sweeps").symlink_to(elsewhere)
    Plan([task], "local", []).write()
    assert "/.sweeps cannot be written or read: it is a symbolic link" in capsys.readouterr().err
    (place / ".submitit").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="submitit cannot be written: it is a symbolic link"):
        Slurm({}).submit([task], {})
    task.folder.path.symlink_to(elsewhere)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    print_to(task.log)
    assert not [*elsewhere.iterdir()]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(OSError, match="is not a regular file"):
        bounded.content(tmp_path / "record.json")
