"""Nothing is written through a link that somebody has put into a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstrun import bounded
from dstrun.launcher.work import print_to
from dstrun.record.writer import Rows, write_atomic


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


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(OSError, match="is no regular file"):
        bounded.content(tmp_path / "record.json")
