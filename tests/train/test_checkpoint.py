"""One whole checkpoint is there at any moment; damage is noticed, said, and costs no more than the last minutes."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

import fork_server
import pytest
import torch
from small_run import SMALL

from dstrun.config.composition import compose
from dstrun.record.folder import RunFolder
from dstrun.run.assemble import assemble
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError
from dstrun.train import checkpoint
from dstrun.train.checkpoint import Checkpoints
from dstrun.train.training import Training

CPU = torch.device("cpu")


@pytest.fixture
def training() -> Training:
    return fresh()


def fresh() -> Training:
    return assemble(compose([*SMALL, "threads=1"]), CPU)


def save_after(training: Training, path: Path, *steps: int) -> None:
    for step in steps:
        training.step = step
        checkpoint.save(path, training)


def flip(path: Path, where: float) -> None:
    """Change one bit, at a share of the file."""
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)


def test_the_one_before_is_kept(training: Training, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load(path, fresh()) == 0
    save_after(training, path, 3, 5, 8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert checkpoint.load(path, fresh()) == 8
    path.unlink()
    assert checkpoint.load(path, fresh()) == 5


@pytest.mark.parametrize("call", [0, 1, 2])
def test_ended_anywhere_in_a_save_one_is_whole(
    call: int, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save is a flush and two renames: a process that ends at any of them leaves a whole checkpoint."""
    path = tmp_path / "checkpoint.pt"
    save_after(training, path, 3, 5)

    class End(BaseException): ...

    calls = []

    def ending(real):
        def act(*arguments):
            calls.append(real)
            if len(calls) == call + 1:
                raise End
            return real(*arguments)

        return act

    monkeypatch.setattr(os, "fsync", ending(os.fsync))
    monkeypatch.setattr(os, "replace", ending(os.replace))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process does not clean up
    with pytest.raises(End):
        save_after(training, path, 8)
    monkeypatch.undo()
    assert checkpoint.load(path, fresh()) == 5
    save_after(training, path, 8)
    assert checkpoint.load(path, fresh()) == 8


@pytest.mark.parametrize("where", [0.1, 0.3, 0.6, 0.9, "cut", "empty"])
def test_a_damaged_one_gives_way_to_the_one_before(
    where: float | str, training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_after(training, path, 3, 5)
    if isinstance(where, float):
        flip(path, where)
    else:
        path.write_bytes(path.read_bytes()[:-100] if where == "cut" else b"")
    assert checkpoint.load(path, fresh()) == 3
    said = f"{path} is damaged: the run continues from checkpoint.previous.pt, step 3"
    assert [r.message for r in caplog.records] == [f"{said}; the file is kept as checkpoint.damaged.pt"]
    save_after(training, path, 8)
    assert checkpoint.load(checkpoint.previous(path), fresh()) == 3, "a damaged one must not take a whole one's place"


def test_where_both_are_damaged_the_run_starts_again_and_both_are_kept(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_after(training, path, 3, 5)
    flip(path, 0.5)
    flip(checkpoint.previous(path), 0.5)
    assert checkpoint.load(path, training) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.damaged.pt", "checkpoint.previous.damaged.pt"]
    assert [record.message for record in caplog.records] == [
        f"{path} is damaged: the run starts from scratch; the file is kept as checkpoint.damaged.pt",
        f"{checkpoint.previous(path)} is damaged: the run starts from scratch; "
        "the file is kept as checkpoint.previous.damaged.pt",
    ]
    assert checkpoint.backends(path) is None


def test_one_of_another_version_is_said_in_a_sentence(training: Training, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    state = training.state() | {"version": "0.0.9", "torch": "2.9.0"}
    del state["flops"]
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"was written by dstrun 0\.0\.9 with torch 2\.9\.0 and dstrun .* cannot"):
        checkpoint.load(path, training)


def test_due_when_the_time_has_passed(monkeypatch: pytest.MonkeyPatch, training: Training, tmp_path: Path) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    experiment = compose([*SMALL, f"results={tmp_path}"])
    folder = RunFolder(experiment.config, experiment.choices)
    folder.path.mkdir(parents=True)
    checkpoints = Checkpoints(folder, every_minutes=2)
    now[0] += 119
    assert not checkpoints.due()
    now[0] += 1
    assert checkpoints.due()
    assert checkpoints.save(training) is None
    assert not checkpoints.due()


def test_a_full_disk_costs_a_warning(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = compose([*SMALL, f"results={tmp_path}"])
    folder = RunFolder(experiment.config, experiment.choices)
    folder.path.mkdir(parents=True)
    checkpoints = Checkpoints(folder, every_minutes=0.001)
    training.step = 3
    assert checkpoints.save(training) is None

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    training.step = 5
    monkeypatch.setattr(os, "fsync", full)
    assert checkpoints.save(training) == "No space left on device"
    assert [p.name for p in folder.path.iterdir()] == ["checkpoint.pt"], "half a file is not left"
    assert checkpoint.load(folder.checkpoint, fresh()) == 3
    assert "cannot be written (No space left on device): the one before is kept" in caplog.text


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
runpy.run_module("dstrun", run_name="__main__", alter_sys=True)
"""


def test_a_run_without_room_for_its_weights_is_not_done_until_there_is(tmp_path: Path) -> None:
    """No file may grow above 100 kB here; a checkpoint is larger, all else is not."""
    script, words = tmp_path / "limited.py", [*SMALL, "checkpoint.every_minutes=0.001", "threads=1"]
    script.write_text(LIMITED)
    done = fork_server.run([sys.executable, str(script), *words, f"results={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "the last checkpoint cannot be written (File too large)" in done.stderr
    (folder,) = (tmp_path / "default").iterdir()
    assert not (folder / "record.json").exists()
    assert not list(folder.glob("*checkpoint*"))
    assert not list(folder.glob(".*checkpoint*"))
    command = [sys.executable, "-m", "dstrun", *words, f"results={tmp_path}"]
    done = fork_server.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "record.json").exists()
    assert (folder / "checkpoint.pt").exists()


def test_who_is_taken_over_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = compose([*SMALL, f"results={tmp_path}", "checkpoint.every_minutes=1e-9", "threads=1"])
    folder = RunFolder(experiment.config, experiment.choices)
    seen: dict[str, bytes] = {}
    step = Training.take_step

    def take_step(self: Training):
        if self.step == 20:
            note = {"token": "another's", "pid": 7, "host": "node7"}
            (folder.path / ".owner").write_text(json.dumps(note))
            seen.update({p.name: p.read_bytes() for p in folder.path.iterdir()})
        return step(self)

    monkeypatch.setattr(Training, "take_step", take_step)
    outcome = run(experiment)
    assert outcome.state == "busy"
    assert outcome.message == f"{folder.id} has been taken over by process 7 on node7: this process stops"
    assert {p.name: p.read_bytes() for p in folder.path.iterdir()} == seen
    assert torch.load(folder.checkpoint, weights_only=True)["step"] == 20


def test_what_counts_as_whole_can_be_opened(tmp_path: Path) -> None:
    """Checksums in the archive cover what is in it, not the headers, and torch reads those otherwise than Python."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 1}, path)
    good, opened = path.read_bytes(), 0
    headers = [*range(30), *range(good.index(b"PK\x01\x02"), len(good))]
    for at in headers:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x15]) + good[at + 1 :])  # 0x10 makes folders of attributes
        if checkpoint.is_whole(path):
            assert torch.load(path, weights_only=True) == {"step": 1}
            opened += 1
    assert 0 < opened < len(headers)
