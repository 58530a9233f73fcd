"""What a run prints while it trains: aligned lines, how long it will take, and nothing left half written."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstrun.system import progress
from dstrun.system.progress import Progress, doing, say
from dstrun.system.safe import Stderr, Visible

ROW = {
    "train_loss": 2.3026,
    "loss": 2.1,
    "top1": 9.5,
    "lr": 0.1,
    "seconds": 12.5,
    "split": "test",
    "peak_bytes": 43.5e6,
}


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


def shown(terminal: Terminal) -> list[str]:
    """Return the lines that a terminal shows: carriage returns, cleared lines and steps upwards as it takes them."""
    lines, at, column = [""], 0, 0
    for code, text in re.findall(r"\x1b\[([\d;?]*[A-Za-z])|([\r\n]|[^\r\n\x1b]+)", terminal.getvalue()):
        if code == "2K":
            lines[at] = ""
        elif code.endswith("A"):
            at -= int(code[:-1] or 1)
        elif text == "\r":
            column = 0
        elif text == "\n":
            at, column = at + 1, 0
            lines += [""] * (at == len(lines))
        elif text:
            before = lines[at].ljust(column)
            lines[at] = before[:column] + text + before[column + len(text) :]
            column += len(text)
    return lines


def test_lines_are_aligned_whatever_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(160 * 391, 391, batch_size=128)
    for epoch, changes in enumerate(({}, {"top1": 100.0, "lr": 5e-5}, {"loss": 12.5, "peak_bytes": None}), 98):
        shown.epoch(ROW | {"epoch": epoch} | changes)
    lines = capsys.readouterr().err.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 82
    assert lines[1].split() == [
        "98/160", "2.3026", "2.1000", "9.50", "%", "0.1000", "12.5", "4,004", "12m", "55s", "43.5", "MB",
    ]  # fmt: skip


def test_the_hours_to_go_are_said_once_steps_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Progress(160 * 391, 391, batch_size=128, clock=clock)
    for step in range(1, 30):
        clock.now += 0.5
        shown.step(step)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "  about 8h 41m to go: 160 epochs of 391 steps, 500 ms a step, 256 images/s"


def test_a_short_run_says_no_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Progress(40, 40, clock=clock)
    for step in range(1, 40):
        clock.now += 1
        shown.step(step)
    assert "to go" not in capsys.readouterr().err


def test_a_long_epoch_is_not_silent_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    shown = Progress(1000, 500, batch_size=10, clock=clock)
    for step in range(1, 101):
        clock.now += 1
        shown.step(step)
    within = [line for line in capsys.readouterr().err.splitlines() if ": step " in line]
    assert within[0] == "  epoch 1/2: step 30 of 500, 10 images/s, ETA 16m 10s"
    assert len(within) == 3


def test_a_terminal_keeps_a_line_an_epoch_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress(20, 10, batch_size=4)
    for step in range(1, 11):
        shown.step(step)
    shown.bar.refresh()
    shown.epoch(ROW | {"epoch": 1})
    shown.step(11)
    shown.close()
    text = terminal.getvalue()
    assert "epoch 1/2" in text
    assert "step 10/10" in text
    assert "  1/2  2.3026     2.1000    9.50 %   0.1000" in text


def test_what_takes_a_moment_is_said_at_once_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with doing("loading PyTorch"):
        assert terminal.getvalue().endswith("loading PyTorch ...\r")
    assert terminal.getvalue().endswith("\x1b[2K\r")


def test_lines_go_above_a_notice_and_an_outer_one_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.Logger("test")
    log.addHandler(Stderr())
    with doing("laying out the network"):
        with doing("loading PyTorch"):
            log.warning("a library speaks")
            assert shown(terminal) == ["a library speaks", "loading PyTorch ..."]
        assert shown(terminal)[-1] == "laying out the network ..."
    assert shown(terminal) == ["a library speaks", ""]


@pytest.mark.parametrize("draws", ["xterm", "dumb"])
def test_log_lines_go_above_a_bar(monkeypatch: pytest.MonkeyPatch, draws: str) -> None:
    monkeypatch.setenv("TERM", draws)
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.Logger("test")
    log.addHandler(Stderr())
    follow = Progress(20, 10)
    follow.step(1)
    log.warning("a library speaks")
    follow.step(2)
    follow.close()
    lines = shown(terminal)
    assert [line.rstrip() for line in lines if "library" in line] == ["a library speaks"]


def test_whoever_loads_pytorch_says_so(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import sys; print(sys.stderr.text)")
    code = "import sys; sys.stderr.isatty = lambda: True\nfrom dstrun.system.lazy import announce; announce()\n"
    code += "import importlib.util; importlib.util.find_spec('torch')\nimport torch; print(type(sys.stderr).__name__)"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths, "TERM": "xterm"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["loading PyTorch ...", "TextIOWrapper"]


def test_a_log_has_only_what_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with doing("loading nothing"):
        pass
    monkeypatch.setattr(progress, "MOMENT_SECONDS", 0.01)
    with doing("reading cifar10"):
        time.sleep(0.1)
    assert capsys.readouterr().err == "reading cifar10 ...\n"


def test_a_terminal_breaks_lines_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    say("  5,020 of 50,200 connections active, layers 7.66% to 63.20%")
    assert terminal.getvalue() == "  5,020 of 50,200 connections active,\n    layers 7.66% to 63.20%\n"
    logged = logging.LogRecord("dstrun", logging.WARNING, "", 0, "no update fits into so few steps", (), None)
    assert Visible("%(levelname)s: %(message)s").format(logged) == "WARNING: no update fits into so few\n  steps"
