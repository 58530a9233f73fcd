"""What a sweep prints while its workers train, from the status files of its runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dstrun.config.composition import compose
from dstrun.launcher.live import MINUTE, Live
from dstrun.launcher.task import Task


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    words = ["model=mlp", "dataset=digits", f"results={tmp_path}"]
    return [Task(compose([*words, f"seed={seed}"])) for seed in range(3)]


def train(task: Task, epoch: int, top1: float | None = None, eta: float | None = None) -> None:
    """Leave what a run leaves that trains."""
    task.folder.path.mkdir(parents=True, exist_ok=True)
    task.folder.status(state="running", epoch=epoch, epochs=10, top1=top1, eta_seconds=eta)


def test_a_log_has_lines_at_starts_and_every_minute(tasks: list[Task], capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    live = Live(tasks, {}, clock)
    with live:
        live.start(tasks[:2])
        train(tasks[0], 3, 50.1, 80.0)
        live.look()
        clock.now += MINUTE
        live.look()
        live.look()
        live.end(tasks[0])
        clock.now += MINUTE
        live.look()
    assert capsys.readouterr().err.splitlines() == [
        f"[0/3] {tasks[0].id}: started",
        f"[0/3] {tasks[1].id}: started",
        f"  {tasks[0].id}: epoch 3/10, top-1 50.10 %, ETA 1m 20s",
    ]


def test_a_job_that_waits_is_told_once_it_trains(tasks: list[Task], capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(tasks, {}, Clock())
    live.start(tasks, waiting=True)
    live.look()
    assert capsys.readouterr().err == ""
    train(tasks[1], 0)
    live.look()
    live.look()
    assert capsys.readouterr().err == f"[0/3] {tasks[1].id}: started\n"


def test_what_an_earlier_attempt_left_is_not_shown(tasks: list[Task]) -> None:
    train(tasks[0], 9, 90.0, 1.0)
    tasks[0].begin()
    assert tasks[0].said() is None
    train(tasks[0], 1, 20.0, 9.0)
    assert (tasks[0].said() or {})["epoch"] == 1


def test_a_terminal_has_a_line_a_run_that_trains(tasks: list[Task]) -> None:
    live = Live(tasks, {}, Clock())
    live.start(tasks[:2])
    train(tasks[0], 3, 50.1, 80.0)
    console = Console(file=io.StringIO(), width=80)
    console.print(live.frame(80, 10))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("3 runs: 2 running, 1 queued")
    assert len(lines) == 4
    assert "running" in lines[2]
    assert "3/10  50.10%  1m 20s" in lines[2]
    assert "starting" in lines[3]
    assert max(map(len, lines)) <= 80
