"""``hydra/launcher=slurm`` on real daemons: what happens to jobs, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import fork_server
import pytest
from results_of import results
from small_run import SMALL

from dstrun.record.lock import BUSY_CODE
from dstrun.torture import jobs

pytestmark = pytest.mark.slurm

SLURM = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=30", "hydra.launcher.cpus_per_task=1",
         "hydra.launcher.mem_gb=null", "threads=1"]  # fmt: skip
WORDS = [*SLURM, *SMALL, "method=set"]
FAULTY = [*SLURM, "model=faulty", "dataset=digits", "wandb=disabled", "method=static", "epochs=1", "sparsity=0.8"]
LONG = [*SLURM, "model=faulty", "model.how=slow", "dataset=digits", "wandb=disabled", "method=set", "sparsity=0.8",
        "optimizer.lr=0.05", "epochs=40"]  # fmt: skip
"""A run that is to be met while it trains: it sleeps through most of ``LASTS`` seconds."""
LASTS = 10


def trained_once(run: dict) -> bool:
    """Return whether every epoch of a run is on record, once and in order, and the record is that of the last."""
    lines = (run["folder"] / "metrics.csv").read_text().splitlines()[1:]
    record = json.loads((run["folder"] / "record.json").read_text())
    epochs = [int(line.split(",")[0]) for line in lines]
    last = float(lines[-1].split(",")[4])
    return epochs == list(range(1, record["config"]["epochs"] + 1)) and record["accuracy"]["top1"] == last


@pytest.fixture(autouse=True)
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every epoch of a ``slow`` network take its share of the time that a run shall last."""
    monkeypatch.setenv("FAULTY_SECONDS", str(LASTS / 40))


@pytest.fixture(scope="module")
def undisturbed(shared_folder) -> Path:
    """The run of ``LONG`` trained by itself: without SLURM, without a sweep, without sleeping."""
    command = [sys.executable, "-m", "dstrun", "--config-dir", "options", *(w for w in LONG if "launcher" not in w)]
    fork_server.run(command, cwd=shared_folder.path, env=shared_folder.environment, check=True)
    (run,) = shared_folder.path.glob("results/default/*/record.json")
    return run.parent


def test_a_sweep_is_an_array_and_is_done(cluster, lab) -> None:
    output = cluster.sweep(*WORDS, "seed=0,1,2", "hydra.launcher.array_parallelism=2")
    assert "3 of 3 runs done" in output
    assert all(trained_once(run) for run in cluster.runs())
    jobs = sorted(run["job"] for run in cluster.runs())
    array = jobs[0].split("_")[0]
    assert jobs == [f"{array}_{i}" for i in range(3)]
    again = cluster.sweep(*WORDS, "seed=0,1,2")
    assert "3 runs, 3 of them done before" in again
    assert "submitted" not in again


def test_a_job_may_start_an_interpreter_of_its_own(cluster, lab, undisturbed: Path) -> None:
    """As every job does outside of these tests, where each is forked: it leaves the same."""
    del cluster.environment[fork_server.CLIENT]
    cluster.environment["FAULTY_SECONDS"] = "0"
    output = cluster.sweep(*LONG)
    assert "1 of 1 run done" in output
    (run,) = cluster.runs()
    (script,) = cluster.path.glob(f"results/default/.submitit/{run['job']}/*submission.sh")
    assert f"{sys.executable} -u -m submitit.core._submit" in script.read_text()
    assert trained_once(run)
    assert results(run["folder"]) == results(undisturbed)


def test_every_way_to_fail_is_named_and_the_client_ends(cluster, lab) -> None:
    """One raises, one is killed, one ends the process, one is cancelled; two are done."""
    words = [*FAULTY, "model.how=none,raise,kill,exit"]
    client = cluster.start(*words)
    long = cluster.start(*LONG, "experiment=other", "epochs=100000", "seed=0,1", "fail_fast=true")
    first, second = cluster.wait(lambda: len(both := cluster.at_work("other")) == 2 and both)
    lab.ask("scancel", first["job"])
    output = cluster.end(client)
    assert client.returncode == 1, output
    assert "1 of 4 runs done" in output
    assert output.count(": failed: RuntimeError: the network cannot be built") == 1
    assert output.count(": FAILED") >= 2
    assert "log: results/default/" in output
    cancelled = cluster.end(long)
    assert long.returncode == 1, cancelled
    assert f"(SLURM job {first['job']}: CANCELLED)" in cancelled
    assert "fail_fast=true: the others are stopped" in cancelled
    assert lab.jobs()[second["job"]] in ("CANCELLED", "COMPLETING")


def test_a_killed_run_is_tried_again_and_continues(cluster, lab, undisturbed: Path) -> None:
    words = [*LONG, "checkpoint.every_minutes=0.01"]
    client = cluster.start(*words, "retry=1")
    (run,) = cluster.wait(lambda: [r for r in cluster.at_work() if (r["folder"] / "checkpoint.pt").exists()])
    os.kill(run["pid"], signal.SIGKILL)
    output = cluster.end(client)
    assert client.returncode == 0, output
    assert f"lost, SLURM job {run['job']}: FAILED" in output
    assert "retry 1 of 1: 1 run" in output
    assert trained_once(run)
    assert "continues after step" in (run["folder"] / "log.txt").read_text()
    assert results(run["folder"]) == results(undisturbed)


def test_a_preempted_job_returns_and_continues(cluster, lab, undisturbed: Path) -> None:
    """A partition of higher priority takes all processors; the job goes back into the queue by SLURM's own doing."""
    words = [*LONG, "checkpoint.every_minutes=0.01"]
    client = cluster.start(*words)
    (run,) = cluster.wait(cluster.at_work)
    time.sleep(1)
    lab.ask("sbatch", "--partition=high", "--cpus-per-task=8", "--output=/dev/null", "--wrap", "sleep 5")
    cluster.wait(lambda: cluster.runs()[0]["state"] == "interrupted")
    output = cluster.end(client)
    assert client.returncode == 0, output
    assert "1 of 1 run done" in output
    log = (run["folder"] / "log.txt").read_text()
    assert log.count("continues after step") == 1
    assert cluster.runs()[0]["job"] == run["job"]
    assert trained_once(run)
    assert results(run["folder"]) == results(undisturbed)


def test_a_warned_job_is_requeued_and_continues(cluster, lab, undisturbed: Path) -> None:
    """SIGUSR2, as SLURM sends it before a time limit: the run is saved before the job goes back."""
    words = LONG
    client = cluster.start(*words)
    (run,) = cluster.wait(cluster.at_work)
    lab.ask("scancel", "--signal=USR2", run["job"])
    output = cluster.end(client)
    assert client.returncode == 0, output
    log = (run["folder"] / "log.txt").read_text()
    assert "Caught signal SIGUSR2" in log
    assert "Requeued job" in log
    assert log.count("continues after step") == 1
    assert trained_once(run)
    assert results(run["folder"]) == results(undisturbed)


def test_a_lost_node_costs_no_run(cluster, lab) -> None:
    """SLURM takes the node for dead, and puts its job back into the queue."""
    words = [*LONG, "checkpoint.every_minutes=0.01"]
    client = cluster.start(*words)
    (run,) = cluster.wait(lambda: [r for r in cluster.at_work() if (r["folder"] / "checkpoint.pt").exists()])
    try:
        lab.ask("scontrol", "update", f"nodename={lab.host}", "state=down", "reason=test")
        cluster.wait(lambda: lab.jobs()[run["job"]] == "PENDING")
    finally:
        lab.ask("scontrol", "update", f"nodename={lab.host}", "state=resume")
    output = cluster.end(client)
    assert client.returncode == 0, output
    assert "continues after step" in (run["folder"] / "log.txt").read_text()
    assert trained_once(run)


def test_two_sweeps_at_once_train_each_run_once(cluster, lab) -> None:
    words = [*LONG, "epochs=10", "seed=0,1"]
    clients = [cluster.start(*words), cluster.start(*words)]
    outputs = [cluster.end(client) for client in clients]
    codes = sorted(client.returncode for client in clients)
    assert codes in ([0, 0], [0, BUSY_CODE]), outputs  # one may end while the other's jobs still train
    assert cluster.states() == ["done", "done"]
    assert all(trained_once(run) for run in cluster.runs())
    for run in cluster.runs():
        assert (run["folder"] / "log.txt").read_text().count("(new)") == 1


def test_a_client_that_is_stopped_finds_its_jobs_again(cluster, lab) -> None:
    words = LONG
    client = cluster.start(*words)
    (run,) = cluster.wait(cluster.at_work)
    client.send_signal(signal.SIGINT)
    output = cluster.end(client)
    assert client.returncode == 130
    assert f"to stop them: scancel {run['job']}\n" in output
    again = cluster.sweep(*words)
    assert f"already in the queue: {run['job']}" in again
    assert "submitted" not in again
    assert "1 of 1 run done" in again
    assert (run["folder"] / "log.txt").read_text().count("(new)") == 1


def test_a_drained_node_keeps_nobody_from_waiting(cluster, lab) -> None:
    """A client is killed while its job waits; the same command follows the job, and a new one may be submitted."""
    lab.ask("scontrol", "update", f"nodename={lab.host}", "state=drain", "reason=test")
    try:
        first = cluster.start(*WORDS, "seed=0")
        cluster.wait(lambda: any("PENDING" in state for state in lab.jobs().values()))
        cluster.wait(lambda: any('"job": "' in f.read_text() for f in cluster.path.glob("results/*/.sweeps/*.json")))
        first.kill()
        first.wait()
        again = cluster.start(*WORDS, "seed=0,1", "retry=1")
        cluster.wait(lambda: "submitted 1 job" in cluster.said[again.pid].read_text())
    finally:
        lab.ask("scontrol", "update", f"nodename={lab.host}", "state=resume")
    output = cluster.end(again)
    assert again.returncode == 0, output
    assert "already in the queue: " in output
    assert "nodes are down or drained" in output
    assert "2 of 2 runs done" in output


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("hydra.launcher.timeout_min=600", "timeout_min=600 exceeds the 60 minutes of partition main"),
        ("hydra.launcher.partition=hihg", "partition=hihg is not known: choose main, high, short (did you mean high?)"),
        ("hydra.launcher.cpus_per_task=99", "--cpus-per-task=99 --requeue: allocation failure: Requested node config"),
        ("hydra.launcher.signal_delay_s=1000", "signal_delay_s=1000 must be below half of timeout_min=30"),
        ("hydra.launcher.tasks_per_node=2", "2 tasks per job make no sense without distributed=ddp"),
        ("hydra.launcher.timeout_min=soon", "hydra.launcher.timeout_min=soon: Value 'soon'"),
    ],
)
def test_what_slurm_would_never_start_is_not_submitted(cluster, word: str, sentence: str) -> None:
    said = cluster.sweep(*WORDS, word, code=2)
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (cluster.path / "results").exists()


@pytest.mark.slow
def test_a_run_outlives_its_time_limit(cluster, lab) -> None:
    """A limit of one minute, and two minutes of training: the job is requeued as often as it takes."""
    words = [*WORDS, "epochs=4000", "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=25"]
    client = cluster.start(*words)
    client.wait(600)
    output = cluster.said[client.pid].read_text()
    assert client.returncode == 0, output
    (run,) = cluster.runs()
    assert (run["folder"] / "log.txt").read_text().count("continues after step") >= 1
    assert trained_once(run)


def test_torture_on_a_queue(lab, tmp_path, monkeypatch) -> None:
    """Every kind of fault that a user of a cluster can make, once."""
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", lab.environment[fork_server.CLIENT])
    monkeypatch.setattr(jobs, "PAUSE_SECONDS", (0.1, 0.3))
    words = [word for word in SLURM if word.startswith("hydra.launcher.")]
    found = jobs.certify(tmp_path, 5, len(jobs.JOB_KINDS), 2, words, lambda verdict: None)
    assert not found.bad, found.json()
    assert found.place["runs"] == "5 as jobs, 5 of them done and equal bit for bit"
    assert len(found.verdicts) >= 6, found.page()
    assert list(tmp_path.iterdir()) == []
