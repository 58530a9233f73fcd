"""``hydra/launcher=local``: one process a run, whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from small_run import SMALL

from dstrun.config.composition import compose
from dstrun.launcher import local
from dstrun.launcher.local import Local
from dstrun.launcher.sweep import signals_interrupt
from dstrun.launcher.task import Exit, Task
from dstrun.launcher.work import work
from dstrun.system.trouble import ConfigError

WORDS = [*SMALL, "method=set"]
FAULTY = ["model=faulty", "dataset=digits", "wandb=disabled", "method=static", "epochs=1", "sparsity=0.8"]
LONG = ["model=faulty", "model.how=slow", *SMALL[1:], "method=set", "epochs=100000"]
"""A run that is to be met while it trains: it sleeps nearly all the time."""


@pytest.fixture(autouse=True)
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a ``slow`` network sleep in every epoch."""
    monkeypatch.setenv("FAULTY_SECONDS", "0.1")


def test_every_way_to_fail_is_named_and_the_others_are_done(folder) -> None:
    output = folder.sweep(*FAULTY, "model.how=none,raise,kill,exit", "hydra.launcher.workers=2", code=1)
    assert "1 of 4 runs done" in output
    assert output.count(": failed: RuntimeError: the network cannot be built") == 1
    assert 'faulty.py", line' in output
    assert ": lost: killed by SIGKILL, often for lack of memory" in output
    assert ": lost: ended with code 3" in output
    logs = [line.split("log: ")[1] for line in output.splitlines() if "    log: " in line]
    assert len(logs) == 3
    assert all((folder.path / log).exists() for log in logs)
    assert "RuntimeError: the network cannot be built" in (folder.path / logs[0]).read_text()
    assert "the same command runs what is not done" in output


def test_a_resubmitted_sweep_runs_what_is_not_done(folder) -> None:
    first = folder.sweep(*WORDS, "seed=0,1")
    assert "2 of 2 runs done" in first
    before = {run["id"]: (run["folder"] / "record.json").stat().st_mtime_ns for run in folder.runs()}
    again = folder.sweep(*WORDS, "seed=0,1,2")
    assert "3 runs, 2 of them done before" in again
    assert "3 of 3 runs done" in again
    after = {run["id"]: (run["folder"] / "record.json").stat().st_mtime_ns for run in folder.runs()}
    assert {name: after[name] for name in before} == before
    assert len(after) == 3


def test_retry_tries_a_failure_again(folder) -> None:
    output = folder.sweep(*FAULTY, "model.how=once,raise", "retry=2", code=1)
    assert "retry 1 of 2: 2 runs" in output
    assert "retry 2 of 2: 1 run\n" in output
    assert "1 of 2 runs done" in output
    assert output.count("failed, RuntimeError: the first attempt fails") == 1
    assert output.count("failed, RuntimeError: the network cannot be built") == 3


def test_the_end_of_an_earlier_attempt_is_not_taken_for_this_one(folder) -> None:
    output = folder.sweep(*FAULTY, "model.how=worse", "retry=1", code=1)
    assert output.count("failed, RuntimeError: the first attempt fails") == 1
    assert output.count("lost, killed by SIGKILL") == 1
    assert folder.states() == ["lost"]


def test_a_diverged_run_is_not_tried_again(folder) -> None:
    output = folder.sweep(*WORDS, "optimizer.lr=1e6", "retry=2", code=1)
    assert "retry" not in output
    assert ": diverged: the loss is not finite" in output


def test_fail_fast_saves_the_others(folder) -> None:
    """The one that fails waits for the long one to have begun, as workers take runs in order."""
    client = folder.start(*LONG, "hydra.launcher.workers=2", "seed=0,1", "fail_fast=true")
    first, _ = folder.wait(lambda: len(folder.at_work()) == 2 and folder.at_work())
    os.kill(first["pid"], signal.SIGKILL)
    output = folder.end(client)
    assert client.returncode == 1, output
    assert "fail_fast=true: the others are stopped" in output
    assert folder.states() == ["interrupted", "lost"]


def test_a_failure_by_itself_stops_no_other(folder) -> None:
    output = folder.sweep(*FAULTY, "model.how=raise,none", code=1)
    assert "1 of 2 runs done" in output
    stopped = folder.sweep(*FAULTY, "model.how=raise,none", "seed=1", "fail_fast=true", code=1)
    assert "0 of 2 runs done" in stopped
    assert ": not started: stopped before it started" in stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupting_the_client_saves_its_runs(folder, number: signal.Signals) -> None:
    client = folder.start(*LONG, "hydra.launcher.workers=2", "seed=0,1,2")
    folder.wait(lambda: len(folder.at_work()) == 2)
    client.send_signal(number)
    output = folder.end(client)
    assert client.returncode == 130, output
    assert "interrupted: 0 of 3 runs done, 2 saved; the same command continues" in output
    assert folder.states() == ["interrupted", "interrupted"]


def test_runs_of_a_killed_client_go_on_and_another_client_leaves_them_alone(folder) -> None:
    client = folder.start(*LONG, "seed=0")
    (run,) = folder.wait(folder.at_work)
    client.kill()
    client.wait()
    output = folder.sweep(*LONG, "seed=0", code=75)
    assert f"running elsewhere:\n  {run['id']}: process {run['pid']} on " in output
    assert folder.at_work()[0]["pid"] == run["pid"]


def test_three_clients_train_each_run_once_and_say_what_is_true(folder) -> None:
    words = [*WORDS, "seed=0,1,2"]
    clients = [folder.start(*words) for _ in range(3)]
    outputs = [folder.end(client) for client in clients]
    assert folder.states() == ["done"] * 3, outputs
    for client, output in zip(clients, outputs, strict=True):
        assert client.returncode == (0 if "3 of 3 runs done" in output else 75), output
        assert "lost" not in output
    for run in folder.runs():
        assert (run["folder"] / "log.txt").read_text().count("(new)") == 1


def test_a_killed_fork_server_stops_no_run(folder) -> None:
    """In a TMPDIR too long for a socket. The server is the parent of the first run; that one goes on without it."""
    temporary = folder.path / ("x" * 100)
    temporary.mkdir()
    folder.environment["TMPDIR"] = str(temporary)
    client = folder.start(*WORDS, "epochs=100", "seed=0,1")
    (run,) = folder.wait(folder.at_work)
    stat = Path(f"/proc/{run['pid']}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    output = folder.end(client)
    assert client.returncode == 0, output
    assert f"the process that starts runs was killed; {run['id']} goes on" in output
    assert folder.states() == ["done", "done"]


@pytest.mark.parametrize("how", ["lock", "file"])
def test_a_bad_folder_is_its_own_runs_failure(how: str, tmp_path: Path) -> None:
    """Told in a sentence, by files or by word of mouth."""
    task = Task(compose([*SMALL, f"results={tmp_path}"]))
    folder, heard = task.folder.path, []
    folder.parent.mkdir(parents=True)
    if how == "file":
        folder.touch()
    else:
        (folder / ".lock").mkdir(parents=True)
    task.begin()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dstrun.launcher.work.print_to", lambda log: None)
        code = work(task.experiment, 1, lambda *said: heard.append(said))
    ((state, message),) = heard
    ending = task.end(Exit(f"ended with code {code}", state=state, message=message))
    assert (code, ending.state) == (2, "failed")
    assert "cannot be" in ending.message


def test_a_first_signal_saves_and_a_closing_terminal_says_it_twice() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_interrupt():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_sweep_wants_is_on_disk(folder) -> None:
    folder.sweep(*WORDS, "seed=0,1")
    (file,) = folder.path.glob("results/default/.sweeps/*.json")
    said = json.loads(file.read_text())
    assert [run["id"] for run in said["runs"]] == [run["id"] for run in folder.runs()]
    assert said["launcher"] == "local"
    assert said["ended"] >= said["started"]


def test_the_machine_is_divided_among_workers(monkeypatch) -> None:
    monkeypatch.setattr("dstrun.launcher.local.cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [(p.threads, p.gpu) for p in Local().places()] == [(None, None)]
    assert [(p.threads, p.gpu) for p in Local(workers=3).places()] == [(2, None)] * 3
    assert Local(workers=20).places()[0].threads == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    assert [(p.threads, p.gpu) for p in Local().places()] == [(4, "2"), (4, "GPU-5f")]
    assert [p.gpu for p in Local(runs_per_gpu=2).places()] == ["2", "GPU-5f", "2", "GPU-5f"]
    assert [p.gpu for p in Local(workers=3).places()] == ["2", "GPU-5f", "2"]


@pytest.mark.parametrize("folder", ["x" * 80, "short"])
def test_the_socket_of_the_fork_server_is_where_its_path_fits(folder: str, monkeypatch) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp")) / folder
    place.mkdir()
    places: list[str] = []
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(local.util, "get_temp_dir", lambda: places.append(tempfile.gettempdir()))
    local.fork_server()
    shutil.rmtree(place.parent)
    assert places == ["/tmp" if len(folder) == 80 else str(place)]
    assert tempfile.gettempdir() == str(place)  # everything else goes where it was told to


def test_wrong_settings_are_refused(folder) -> None:
    with pytest.raises(ConfigError, match=r"launcher.workers=0 must be at least 1"):
        Local(workers=0)
    with pytest.raises(ConfigError, match=r"launcher.together=0 must be at least 1"):
        Local(together=0)
    said = folder.sweep(*WORDS, "hydra.launcher.workers=0", code=2)
    assert said == "dstrun: launcher.workers=0 must be at least 1\n"
    assert not Path(folder.path / "results").exists()
