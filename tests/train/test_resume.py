"""A run that was stopped anywhere ends with the record and the weights of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fork_server
import pytest
import torch

WORDS = ["dataset=digits", "wandb=disabled", "sparsity=0.8", "optimizer.lr=0.05", "checkpoint.every_minutes=0.003"]
METHODS = {
    "gse": ["model=mlp", "epochs=60", "method=gse", "subset=graest"],
    "rigl": ["model=mlp", "epochs=60", "method=rigl", "scope=global"],
    "set": ["model=resnet20", "epochs=10", "method=set", "optimizer=adamw"],
    "fresh": ["model=resnet20", "model.width=0.5", "epochs=5", "method=gse", "method.batch=fresh", "precision=bf16"],
    "sparse": ["model=resnet20", "epochs=10", "method=gse", "subset=grabo", "scope=global", "backend=sparse"],
    "frugal": ["model=resnet20", "epochs=4", "method=gse", "subset=grabo", "scope=global", "backend=sparse"],
    "dense": ["model=mlp", "epochs=60", "method=dense", "sparsity=0"],
    "static": ["model=mlp", "epochs=60", "method=static", "dataset.validation=200"],
}
METHODS["frugal"] += ["model.width=0.5", "dataset.limit=320", "batch_size=64", "microbatch=32", "checkpointing=block"]
METHODS["frugal"] += ["activations=int8", "weights=bf16", "state=int8"]
SLOW = [m if m in ("fresh", "frugal") else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
"""Small networks are killed at every kind of moment in ``tests/torture``."""


REAL = ["model=vgg16_small", "dataset=cifar10", "dataset.validation=1000", "dataset.limit=2000", "epochs=20"]
REAL += ["method=gse", "subset=grabo"]
"""A run of a minute or more on real images, with dropout, crops and flips."""


def start(folder: Path, words: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "dstrun", *WORDS, *words, f"results={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return fork_server.Process(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(folder: Path) -> tuple[dict, dict, str, str]:
    """The record, the checkpoint and the rows of the one run in a folder, without what is measured in seconds."""
    (run,) = (folder / "default").iterdir()
    record = json.loads((run / "record.json").read_text())
    record["config"].pop("results")
    assert not list(run.glob(".[!l]*"))
    assert not list(run.glob("*previous*"))
    for timed in ("seconds", "rows", "checksum"):
        record.pop(timed)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    rows = (run / "metrics.csv").read_text().splitlines()
    untimed = [",".join(f for i, f in enumerate(row.split(",")) if i not in (7, 10)) for row in rows]
    return record, checkpoint, "\n".join(untimed), (run / "topology.csv").read_text()


def same(a: object, b: object) -> bool:
    """Equal bit for bit, tensors included."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_equal_runs(whole: Path, stopped: Path) -> None:
    (record, state, metrics, topology), (record2, state2, metrics2, topology2) = finished(whole), finished(stopped)
    assert record == record2
    assert metrics == metrics2
    assert topology == topology2
    for state_ in (state, state2):
        for timed in ("clock", "last", "rows"):
            state_.pop(timed)
        for phase in state_["memory"]["phases"].values():
            phase["rows"] = [[event, *sizes] for event, _milliseconds, *sizes in phase["rows"]]
    assert same(state, state2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """Uninterrupted runs by method, each trained once."""
    made: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method)
            process = start(made[method], METHODS[method])
            output, _ = process.communicate()
            assert process.returncode == 0, output
        return made[method]

    return run


def kill_while_training(folder: Path, words: list[str], seconds: float, after_checkpoint: bool = False) -> None:
    """Kill a run so many seconds after it began to train, or after it first saved; it must not have ended by then."""
    process = start(folder, words)
    deadline = time.monotonic() + 120
    while not (began(folder, process.pid) and (not after_checkpoint or list(folder.glob("default/*/checkpoint.pt")))):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(folder.glob("default/*/record.json"))


def began(folder: Path, pid: int) -> bool:
    """Return whether this very process is training the run."""
    return any(json.loads(path.read_text())["pid"] == pid for path in folder.glob("default/*/status.json"))


@pytest.mark.parametrize("method", SLOW)
def test_killed_while_training(method: str, whole, tmp_path: Path) -> None:
    """Killed with SIGKILL at a random moment after its first checkpoint and once more later, then left to end."""
    moments = random.Random(method)
    for _ in range(2):
        kill_while_training(tmp_path, METHODS[method], moments.uniform(0, 0.3), after_checkpoint=True)
    process = start(tmp_path, METHODS[method])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert_equal_runs(whole(method), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_five_times_on_real_images(real_images: Path, tmp_path: Path) -> None:
    """Killed at five random moments of its training, a run on real images ends as one that was not."""
    words = [*REAL, f"dataset.root={real_images}"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    output, _ = start(whole, words).communicate()
    assert list(whole.glob("default/*/record.json")), output
    moments = random.Random(0)
    for _ in range(5):
        kill_while_training(stopped, words, moments.uniform(0, 7))
    output, _ = start(stopped, words).communicate()
    assert list(stopped.glob("default/*/record.json")), output
    assert "continues after step" in output
    assert_equal_runs(whole, stopped)


def test_asked_to_stop(whole, tmp_path: Path) -> None:
    """A signal saves within the step and exits with 130; the same command goes on from that very step, again and again.

    Each comes after a checkpoint that its own process has saved.
    """
    stops = [0]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        before = saved(tmp_path)
        process = start(tmp_path, METHODS["gse"])
        while saved(tmp_path) == before:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate()
        assert process.returncode == 130, output
        assert (f"continues after step {stops[-1]}" in output) == (number != signal.SIGINT), output
        (run,) = (tmp_path / "default").iterdir()
        status = json.loads((run / "status.json").read_text())
        assert status["state"] == "interrupted"
        stops.append(torch.load(run / "checkpoint.pt", weights_only=True)["step"])
        assert status["message"] == f"{number.name} at step {stops[-1]} of 660"
    assert stops == sorted(set(stops))
    process = start(tmp_path, METHODS["gse"])
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert f"continues after step {stops[-1]}" in output
    assert_equal_runs(whole("gse"), tmp_path)


def saved(folder: Path) -> list[int]:
    """Return when the checkpoint of the run in a folder was saved, where there is one."""
    return [path.stat().st_mtime_ns for path in folder.glob("default/*/checkpoint.pt")]
