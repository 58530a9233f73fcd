"""``hydra.launcher.together``: runs that share a process leave what each would have left alone."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import deque
from pathlib import Path
from typing import Any

import torch
from results_of import results
from small_run import SMALL
from torch.utils._pytree import tree_flatten

from dstrun.config.composition import compose
from dstrun.launcher.local import taken
from dstrun.launcher.task import Task

WORDS = [*SMALL, "method=set", "threads=1"]
LONG = [*WORDS, "epochs=100000"]
TOGETHER = "hydra.launcher.together=3"
DROPS = [
    *("model=faulty", "model.how=drop", "dataset=digits", "dataset.limit=96", "batch_size=32", "epochs=3"),
    *("wandb=disabled", "threads=1", "method=gse", "sparsity=0.8", "optimizer.lr=0.05"),
    *("schedule.interval_steps=4", "schedule.begin=0", "schedule.end=1"),
]
"""A network with dropout, whose topology is updated twice."""
MEASURED = {"seconds", "env", "command", "config", "rows", "checksum"}
"""Of a record, what is measured, or says where it was."""


def states(folder: Path) -> list[Any]:
    """Return what a checkpoint says of weights, topologies and the optimizer."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    return tree_flatten([checkpoint[key] for key in ("step", "model", "layers", "optimizer", "loss_sum")])[0]


def same(folder: Path, other: Path) -> None:
    """Check that two folders are of the same run, but for what is measured."""
    one, two = (json.loads((path / "record.json").read_text()) for path in (folder, other))
    assert {k: v for k, v in one.items() if k not in MEASURED} == {k: v for k, v in two.items() if k not in MEASURED}
    assert results(folder) == results(other)
    for mine, its in zip(states(folder), states(other), strict=True):
        assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its


def log(folder: Path) -> str:
    """Return a run's log without times and the place of its results."""
    text = re.sub(r"\b\d+(\.\d+)? m?s\b", "TIME", (folder / "log.txt").read_text())
    text = re.sub(r"(?m)^( *\d+/\d+(?: +\S+){5}) .*", r"\1 TIMES", text)
    text = re.sub(r"(?m)^(  about .* to go: .*|.* \.\.\.)\n", "", text)
    return text.replace(f"{folder.parents[1].name}/", "")


def test_three_in_a_process_leave_what_three_processes_do(folder) -> None:
    folder.sweep(*DROPS, "seed=0,1,2", "results=alone", "hydra.launcher.workers=2")
    folder.sweep(*DROPS, "seed=0,1,2", "results=turns", TOGETHER)
    alone, turns = (sorted(folder.path.glob(f"{name}/*/*/record.json")) for name in ("alone", "turns"))
    assert [path.parent.name for path in alone] == [path.parent.name for path in turns]
    assert len(turns) == 3
    for one, other in zip(alone, turns, strict=True):
        same(one.parent, other.parent)
        assert log(one.parent) == log(other.parent)
        found = json.loads(other.read_text())
        assert (found["env"]["together"], found["updates"]) == (3, 2)
        assert ",,test" in (other.parent / "metrics.csv").read_text()  # no resident memory
    statuses = [json.loads((path.parent / "status.json").read_text()) for path in turns]
    assert len({status["pid"] for status in statuses}) == 1


def test_killed_they_continue_each_from_its_checkpoint(folder) -> None:
    words = [*WORDS, "epochs=30", "checkpoint.every_minutes=0.005"]
    client = folder.start(*words, "seed=0,1,2", TOGETHER)
    runs = folder.wait(lambda: len(found := folder.at_work()) == 3 and found)
    folder.wait(lambda: all((each["folder"] / "checkpoint.pt").exists() for each in runs))
    (process,) = {each["pid"] for each in runs}
    os.kill(process, signal.SIGKILL)
    output = folder.end(client)
    assert client.returncode == 1, output
    assert output.count(": lost: killed by SIGKILL") == 3
    again = folder.sweep(*words, "seed=0,1,2", TOGETHER)
    assert "3 of 3 runs done" in again
    folder.sweep(*words, "seed=0,1,2", "results=alone", "hydra.launcher.workers=2")
    for killed in runs:
        assert "continues after step" in (killed["folder"] / "log.txt").read_text()
        same(killed["folder"], folder.path / "alone" / killed["folder"].relative_to(folder.path / "results"))


def test_interrupting_the_client_saves_all(folder) -> None:
    client = folder.start(*LONG, TOGETHER, "seed=0,1,2,3")
    runs = folder.wait(lambda: len(found := folder.at_work()) == 3 and found)
    client.send_signal(signal.SIGTERM)
    output = folder.end(client)
    assert client.returncode == 130, output
    assert "interrupted: 0 of 4 runs done, 3 saved; the same command continues" in output
    assert folder.states() == ["interrupted"] * 3
    for saved in runs:
        assert (saved["folder"] / "checkpoint.pt").exists()
        said = (saved["folder"] / "log.txt").read_text()
        assert f"{saved['id']} interrupted: SIGTERM at step " in said
        assert "the same command continues it" in said


def test_one_that_diverges_ends_alone_and_at_once(folder) -> None:
    output = folder.sweep(*WORDS, "epochs=20", "optimizer.lr=1e6,0.05", "hydra.launcher.together=2", code=1)
    assert re.search(r"\[1/2\] .*: diverged, the loss is not finite at step \d+ of \d+\n", output)
    assert re.search(r"\[2/2\] .*: done, top-1 ", output)
    said = {each["state"]: (each["folder"] / "log.txt").read_text() for each in folder.runs()}
    assert "diverged: the loss is not finite" in said["diverged"]
    assert "diverged" not in said["done"]
    assert "\n20/20  " in said["done"]
    assert "20/20  " not in said["diverged"]


def test_runs_that_share_a_process_agree_on_what_it_has_once() -> None:
    words = ["seed=0", "seed=1 precision=bf16", "seed=2", "seed=3 threads=2", "seed=4", "seed=5"]
    waiting = deque(Task(compose([*SMALL, *each.split()])) for each in words)
    seeds = []
    while waiting:
        seeds.append([task.experiment.config["seed"] for task in taken(waiting, 3)])
    assert seeds == [[0, 2, 4], [1], [3], [5]]
