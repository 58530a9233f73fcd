"""A process that trains outlasts whoever reads what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstrun.system.progress import Progress

PRINTS = """
import logging, sys, traceback, warnings
from dstrun.system.output import outlast
outlast()
logging.basicConfig(stream=sys.stderr)
from rich.progress import Progress
from rich.console import Console
file = open("saved", "w")
for i in range(300):
    print("line" * 100)
    print("line" * 100, file=sys.stderr, flush=True)
    sys.stdout.flush()
    logging.getLogger("x").warning("word")
    warnings.warn(f"{i}")
    try:
        raise RuntimeError
    except RuntimeError:
        traceback.print_exc()
with Progress(console=Console(stderr=True, force_terminal=True)) as bar:
    bar.update(bar.add_task("x", total=10), advance=5)
file.write("all of it")
file.close()
sys.exit(7)
"""
"""Print in every way there is, and save a file."""

LEAVES = {
    "pipe": "| head -c 10 >/dev/null; exit ${PIPESTATUS[0]}",
    "both": "2>&1 | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}",
    "stderr": "2> >(head -c 10 >/dev/null) >/dev/null",
    "full": "2>/dev/full >/dev/full",
    "closed": "2>&- >&- <&-",
    "no stderr": "2>&- >/dev/null",
    "no stdout": ">&- 2>/dev/null",
}


@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
def test_whoever_reads_may_leave(leaves: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -c "$PRINTS" {leaves}'
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PRINTS": PRINTS, "PYTHONPATH": paths}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 7
    assert (tmp_path / "saved").read_text() == "all of it"


def test_a_terminal_that_closes_ends_nothing(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert process.wait(60) == 7
    assert (tmp_path / "saved").read_text() == "all of it"


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_a_terminal_that_draws_no_bar_gets_a_line_an_epoch(terminal: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = Progress(30, 10)
    shown.step(10)
    row = {"train_loss": 1.0, "loss": 1.0, "top1": 50.0, "lr": 0.1, "seconds": 1.0, "split": "test"}
    shown.epoch({"epoch": 1} | row)
    shown.close()
    head, line = capsys.readouterr().err.splitlines()
    assert head.split() == ["epoch", "loss", "test", "loss", "top-1", "lr", "s/epoch", "images/s", "ETA", "peak"]
    assert line.split()[:3] == ["1/3", "1.0000", "1.0000"]
    assert len(line) == len(head)
