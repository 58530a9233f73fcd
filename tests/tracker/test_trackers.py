"""Trackers are found by their files, show the same keys, and continue where a killed run stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from importlib import invalidate_caches
from pathlib import Path

import fork_server
import pytest
from small_run import SMALL

import dstrun.tracker
from dstrun.cli.main import main
from dstrun.config.schema import trackers
from dstrun.system import reach
from dstrun.system.trouble import ConfigError
from dstrun.tracker import mlflow, protocol, tensorboard
from dstrun.tracker.page import KEYS, Page, Table
from dstrun.tracker.protocol import Trackers

pytestmark = pytest.mark.usefixtures("nobody")

EPOCH = {*KEYS.values(), "test/loss", "test/top1", "test/top5", "density/fc1", "density/fc2", "density/fc3"}
WORDS = [word for word in SMALL if not word.startswith(("wandb", "epochs"))] + ["method=rigl", "schedule.updates=6"]

OUTSIDE = """
import json

class Mirror:
    next = 0
    remedy = ""

    @staticmethod
    def decide(config):
        return "offline", "lines.jsonl"

    @classmethod
    def open(cls, mode, folder, page):
        made = cls()
        made.path = folder / "lines.jsonl"
        return made

    def log(self, values, step):
        BEFORE
        with self.path.open("a") as file:
            print(json.dumps(values | {"step": step}), file=file)

    def finish(self, summary, exit_code=0):
        self.log({"state": summary["state"], "code": exit_code}, self.next)
"""


@pytest.fixture
def outside(tmp_path: Path):
    """Add trackers that are not of this package: one writes lines, the other fails."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "lines.py").write_text(OUTSIDE.replace("BEFORE", "pass"))
    (folder / "faulty.py").write_text(OUTSIDE.replace("BEFORE", "raise OSError('the service\\nis gone')"))
    dstrun.tracker.__path__.append(str(folder))
    invalidate_caches()
    yield
    dstrun.tracker.__path__.remove(str(folder))
    for name in ("lines", "faulty"):
        sys.modules.pop(f"dstrun.tracker.{name}", None)


def steps_of(run: Path) -> list[int]:
    return [int(row["step"]) for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())]


def test_every_module_is_a_tracker_but_for_those_they_share() -> None:
    assert trackers() == ("mlflow", "tensorboard", "wandb", "none")
    for name in trackers()[:-1]:
        assert {"decide", "open", "log", "finish"} <= set(vars(protocol.mirror(name)))


def test_a_file_beside_them_is_one_more_and_the_failure_of_another_stops_nothing(
    outside, tmp_path: Path, monkeypatch, capfd, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, "epochs=2", "tracker=[faulty,lines]"]) == 0
    (run,) = Path("results/default").iterdir()
    *rows, last = [json.loads(line) for line in (run / "lines.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == steps_of(run) == [11, 22]
    assert {*rows[0]} - {"memory/peak"} == EPOCH - {"memory/peak"} | {"step"}
    assert (last["state"], last["code"]) == ("done", 0)
    said = capfd.readouterr().err
    assert "faulty offline (lines.jsonl), lines offline (lines.jsonl)" in said
    failure = "tracker faulty has stopped logging this run, whose record on disk continues without it: "
    assert [message for message in caplog.messages if "faulty" in message] == [failure + "the service is gone"]
    assert main(["tracker=line"]) == 2
    assert "choose faulty, lines, mlflow, tensorboard, wandb, none (did you mean lines?)" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_said_before_training(monkeypatch, name: str, package: str) -> None:
    monkeypatch.setattr(protocol, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as error:
        Trackers({"tracker": [name], "results": "results"})
    assert str(error.value) == f"tracker={name} needs a package that is not installed: pip install {package}"


def test_an_mlflow_server_that_is_not_there_is_said_before_training(monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(reach, "PATIENCE", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a..b")
    with pytest.raises(ConfigError, match=r"^tracker=mlflow finds no connection to MLFLOW_TRACKING_URI=http://a\.\.b "):
        Trackers({"tracker": ["mlflow"], "results": "results"})


def in_wandb(run: Path) -> tuple[list[int], set[str]]:
    """Return the steps and the keys of the last offline file."""
    log = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [record["history"]["item"] for record in map(json.loads, lines) if record["type"] == "history"]
    return [row["_step"] for row in rows], {key for row in rows for key in row if not key.startswith("_")}


def in_tensorboard(folder: Path) -> dict[str, list[int]]:
    """Return the steps of every scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {key: [event.step for event in found.Scalars(key)] for key in found.Tags()["scalars"]}


def in_mlflow(run: Path) -> dict[str, list[int]]:
    """Return the steps of every metric."""
    from mlflow import MlflowClient

    note = json.loads((run / "mlflow.json").read_text())
    client = MlflowClient(note["uri"])
    keys = client.get_run(note["run"]).data.metrics
    return {key: [metric.step for metric in client.get_metric_history(note["run"], key)] for key in keys}


def test_a_killed_run_goes_on_in_all_of_them_without_a_step_doubled_or_missing(tmp_path: Path, monkeypatch) -> None:
    """The first start shows nothing, the second is killed, the third ends: all have every epoch once, by one name."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words = [
        sys.executable,
        "-m",
        "dstrun",
        *WORDS,
        "epochs=20",
        "batch_size=16",
        "checkpoint.every_minutes=0.003",
        "threads=1",
    ]
    words += [f"results={tmp_path / 'results'}"]
    shown = ["tracker=[wandb,tensorboard,mlflow]", "wandb=offline"]
    for more, ready in ((["tracker=none"], "*/checkpoint.pt"), (shown, "*/mlflow.json")):
        process = fork_server.Process([*words, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not list((tmp_path / "results" / "default").glob(ready)) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (run,) = (tmp_path / "results" / "default").iterdir()
    assert not (run / "record.json").exists()
    fork_server.run([*words, *shown], check=True, capture_output=True)
    steps = steps_of(run)
    assert len(steps) == 20
    assert in_wandb(run) == (steps, EPOCH)
    for found in (in_tensorboard(run / "tensorboard"), in_mlflow(run)):
        assert {key: found[key] for key in EPOCH} == dict.fromkeys(EPOCH, steps)
        final = {*found} - EPOCH
        assert {"cost/inference", "parameters/sparsity", "time/train", "memory/step_peak"} <= final
        assert all(found[key] == steps[-1:] for key in final)
    (table,) = (tmp_path / "results" / "mlruns").glob("*/*/artifacts/layers.csv")
    assert [row["name"] for row in csv.DictReader(table.read_text().splitlines())] == ["fc1", "fc2", "fc3"]


def test_what_a_killed_process_has_shown_of_a_step_is_shown_once(tmp_path: Path, monkeypatch) -> None:
    """``epoch`` comes last: without it, the step is not whole."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = Page("id", "group", [], {"results": str(tmp_path), "experiment": "default"})
    for kind in (tensorboard.Mirror, mlflow.Mirror):
        first = kind.open("offline", tmp_path, page)
        assert first.next == 0
        first.log({"epoch": 1, "lr": 0.1}, 11)
        first.log({"lr": 0.2}, 22)
        second = kind.open("offline", tmp_path, page)
        assert second.next == 12
        second.log({"epoch": 2, "lr": 0.2, "flops": 5}, 22)
        second.next = 23
        second.finish({"state": "done", "layers": Table(["name"], [["fc1"]])})
    expected = {"epoch": [11, 22], "lr": [11, 22], "flops": [22]}
    assert in_tensorboard(tmp_path / "tensorboard") == expected
    assert in_mlflow(tmp_path) == expected
