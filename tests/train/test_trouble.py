"""What system or user can mend ends a run with a sentence on record, and the same command goes on from there."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

import dstrun.run.lifecycle
from dstrun.cli.main import main
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.record import writer
from dstrun.record.folder import RunFolder
from dstrun.record.writer import Rows
from dstrun.run.lifecycle import Outcome, report, run
from dstrun.system.trouble import ADVICE, ConfigError, sentence, why
from dstrun.system.whole import write_atomic
from dstrun.train import checkpoint


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def no_room(code: int = errno.ENOSPC) -> OSError:
    return OSError(code, os.strerror(code), "file")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return compose([*SMALL, f"results={tmp_path}", "epochs=2", "threads=1"])


def ended(outcome: Outcome) -> dict[str, Any]:
    return json.loads((outcome.folder.path / "status.json").read_text())


PLACES = {
    "put together": (dstrun.run.lifecycle, "assemble"),
    "begin": (RunFolder, "begin"),
    "introduce": (dstrun.run.lifecycle, "introduce"),
    "rows": (Rows, "append"),
    "record": (RunFolder, "finish"),
}
ERRORS: dict[str, tuple[BaseException, str]] = {
    "full": (no_room(), "No space left on device; free space"),
    "files": (no_room(errno.EMFILE), "Too many open files; raise the limit"),
    "memory": (MemoryError(), "out of memory"),
    "allocator": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory ("),
    "exit": (SystemExit(0), "ended the process (0)"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("kind", ["full", "exit"])
def test_wherever_it_strikes_it_is_on_record_and_the_run_goes_on(
    place: tuple[Any, str], kind: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    error, said = ERRORS[kind]
    with monkeypatch.context() as patched:
        patched.setattr(*place, failing(error))
        outcome = run(experiment)
    assert report(outcome) == 1
    assert ended(outcome)["state"] == "failed"
    assert said in ended(outcome)["message"]
    assert "Traceback" not in capsys.readouterr().err
    if place[1] in ("begin", "record"):
        assert run(experiment).state == "done"


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_strikes_is_a_sentence(
    kind: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    error, said = ERRORS[kind]
    monkeypatch.setattr(dstrun.run.lifecycle, "assemble", failing(error))
    outcome = run(experiment)
    assert outcome.state == ended(outcome)["state"] == "failed"
    assert said in (outcome.message or "")
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(dstrun.run.lifecycle, "assemble", failing(KeyError("x")))
    outcome = run(experiment)
    assert outcome.message == "KeyError: 'x'"
    assert "Traceback" in capsys.readouterr().err
    assert "Traceback" in (outcome.folder.path / "error.txt").read_text()


def test_a_bug_of_a_users_own_code_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "class Bug:\n    def build(self, image, classes):\n        return 1 / 0\n"
    (tmp_path / "own_bug.py").write_text(text)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bug.yaml").write_text("_target_: own_bug.Bug\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["plan", "--config-dir", ".", "model=bug", "dataset=digits"]
    assert main(words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("dstrun: ")
    assert last.endswith("own_bug.py line 3: ZeroDivisionError: division by zero")


def test_without_its_last_checkpoint_it_is_not_done(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", failing(no_room()))
        outcome = run(experiment)
    assert outcome.state == ended(outcome)["state"] == "failed"
    assert "the last checkpoint cannot be written" in (outcome.message or "")
    assert not (outcome.folder.path / "record.json").exists()
    again = run(experiment)
    assert again.state == "done"
    assert again.folder.checkpoint.exists()


def test_a_second_interrupt_is_on_record(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dstrun.run.lifecycle, "fit", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(experiment)
    (status,) = Path(experiment.config["results"]).glob("*/*/status.json")
    assert json.loads(status.read_text())["state"] == "interrupted"


def test_a_folder_that_cannot_be_held_is_refused(experiment: Experiment) -> None:
    folder = RunFolder(experiment.config, experiment.choices)
    (folder.path / ".lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        run(experiment)


@pytest.mark.parametrize("text", ["{}", "longer than it was"])
def test_a_few_bytes_find_room_on_a_full_disk(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    path.write_text('{"state": 1}')
    monkeypatch.setattr(writer.os, "fsync", failing(no_room()))
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, text)
    assert path.read_text() == '{"state": 1}'
    write_atomic(path, text, squeeze=True)
    assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("code", sorted(ADVICE))
def test_an_error_of_the_system_says_what_to_do(code: int) -> None:
    assert why(OSError(code, None)) == os.strerror(code)
    assert "None" not in (sentence(OSError(code, os.strerror(code))) or "None")


def test_what_is_nobody_elses_fault_has_no_sentence() -> None:
    assert sentence(ValueError("x")) is None
    assert sentence(RuntimeError("shapes differ")) is None
    assert sentence(FileNotFoundError(errno.ENOENT, "No such file")) is None
