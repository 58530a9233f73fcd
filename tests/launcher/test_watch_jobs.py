"""How jobs are followed, against what SLURM may say; a real one is in test_slurm."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from dstrun.launcher import queue
from dstrun.launcher.queue import Job
from dstrun.launcher.slurm import (
    PATIENCE_SECONDS,
    REQUEUE_PAUSES,
    RETURN_SECONDS,
    SETTLE_SECONDS,
    Slurm,
    Watch,
    requeue_patiently,
)
from dstrun.system.trouble import ConfigError


@pytest.fixture
def follow(monkeypatch, tmp_path: Path):
    """Follow one job through what SLURM says of it, a pair of seconds and answer after the other."""

    def run(*says: tuple[float, Job | str], done_at: float | None = None) -> tuple[str, float]:
        now = [0.0]

        def answer() -> dict[str, Job] | None:
            said = [what for start, what in says if start <= now[0]][-1]
            return {"gone": {}, "silent": None}[said] if isinstance(said, str) else {"7_0": said}

        class Task:
            @property
            def done(self) -> bool:
                return done_at is not None and now[0] >= done_at

        monkeypatch.setattr(queue, "jobs", answer)
        monkeypatch.setattr(queue, "history", lambda ids: {})

        def sleep(seconds: float) -> None:
            now[0] += seconds
            assert now[0] < 1e5, "never ends"

        watch = Watch({Task(): "7_0"}, tmp_path / "%j", lambda: now[0], sleep)  # type: ignore[dict-item]
        ((_, exit),) = list(watch.ends())
        return exit.how, now[0]

    return run


def test_a_job_that_ends_is_believed_after_a_while(follow) -> None:
    how, at = follow((0, Job("PENDING", "Priority")), (5, Job("RUNNING")), (30, Job("TIMEOUT")))
    assert how == "SLURM job 7_0: TIMEOUT"
    assert at >= 30 + SETTLE_SECONDS


def test_a_record_ends_it_whatever_slurm_says(follow) -> None:
    how, at = follow((0, "silent"), done_at=100)
    assert how == ""
    assert at < 120


@pytest.mark.parametrize("state", sorted(queue.RETURNS))
def test_a_job_that_slurm_puts_back_is_waited_for(follow, state: str) -> None:
    how, at = follow((0, Job("RUNNING")), (20, Job(state)), (50, Job("PENDING", "BeginTime")), (200, Job("COMPLETED")))
    assert how == "busy"
    assert at > 200
    how, at = follow((0, Job("RUNNING")), (20, Job(state)))
    assert how == f"SLURM job 7_0: {state}"
    assert at >= 20 + RETURN_SECONDS


@pytest.mark.parametrize(
    "reason", ["launch failed requeued held", "JobHeldUser", "PartitionTimeLimit", "BadConstraints"]
)
def test_a_job_that_waits_for_a_person_is_named(follow, reason: str) -> None:
    how, _ = follow((0, Job("PENDING", reason)))
    assert how == f"SLURM job 7_0 needs manual action ({reason}): scontrol release or scancel it"


def test_a_job_that_waits_for_its_turn_is_not_given_up(follow) -> None:
    how, at = follow((0, Job("PENDING", "Resources")), (50000, Job("OUT_OF_MEMORY")))
    assert how == "SLURM job 7_0: OUT_OF_MEMORY"
    assert at > 50000


def test_a_job_that_is_gone_is_named(follow) -> None:
    how, at = follow((0, Job("RUNNING")), (40, "gone"))
    assert how == "SLURM job 7_0 disappeared from the queue"
    assert at >= 40 + SETTLE_SECONDS


def test_a_task_cancelled_while_it_waited_is_named(follow) -> None:
    how, _ = follow((0, Job("PENDING", "JobArrayTaskLimit")), (40, "gone"))
    assert how == "SLURM job 7_0: CANCELLED before it started"
    how, _ = follow((0, Job("PENDING", "Priority")), (20, Job("RUNNING")), (40, "gone"))
    assert how == "SLURM job 7_0 disappeared from the queue"


def test_a_silent_slurm_is_waited_for_but_not_for_ever(follow, capsys) -> None:
    how, _ = follow((0, Job("RUNNING")), (10, "silent"), (1000, Job("RUNNING")), (1100, Job("FAILED")))
    assert how == "SLURM job 7_0: FAILED"
    how, at = follow((0, "silent"))
    assert how == "SLURM job 7_0 disappeared from the queue"
    assert at > PATIENCE_SECONDS
    assert capsys.readouterr().err.count("SLURM does not answer") == 2


PARTITIONS = (
    "PartitionName=cpu Default=YES MaxTime=1-00:00:00 State=UP\n"
    "PartitionName=gpu Default=NO MaxTime=UNLIMITED State=UP\n"
    "PartitionName=short Default=NO MaxTime=00:30:00 State=UP\n"
)


@pytest.mark.parametrize(
    ("name", "minutes", "sentence"),
    [
        (None, 1440, None),
        (None, 1441, "exceeds the 1440 minutes of partition cpu"),
        ("gpu", 100000, None),
        ("gpu,short", 31, "exceeds the 30 minutes of partition gpu,short"),
        ("gpus", 10, "gpus is not known: choose cpu, gpu, short (did you mean gpu?)"),
    ],
)
def test_partition_limits(monkeypatch, name: str | None, minutes: int, sentence: str | None) -> None:
    monkeypatch.setattr(queue, "ask", lambda *command: PARTITIONS)
    if sentence is None:
        queue.check_partition(name, minutes)
    else:
        with pytest.raises(ConfigError) as refused:
            queue.check_partition(name, minutes)
        assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("sbatch: error: Unable to contact slurm controller (connect failure)", "SLURM cannot be reached, try again"),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv", "SLURM cannot be reached"),
        ("allocation failure: Unexpected message; Communication connection failure", "SLURM cannot be reached"),
        ("sbatch: error: invalid partition specified: nope", "SLURM rejects a job with --mem=1G: invalid partition"),
    ],
)
def test_a_controller_that_is_away_is_not_taken_for_a_wrong_setting(said: str, sentence: str, monkeypatch) -> None:
    monkeypatch.setattr(queue.subprocess, "run", lambda command, **_: CompletedProcess(command, 1, "", said))
    with pytest.raises(ConfigError, match=sentence):
        queue.check_job(["--mem=1G"])


def test_jobs_submitted_before_slurm_goes_away_are_known(monkeypatch, tmp_path: Path) -> None:
    import submitit
    from submitit.core.utils import FailedJobError

    class Executor:
        def __init__(self, *_, **__) -> None:
            self.arrays = 0

        def update_parameters(self, **_) -> None: ...

        def map_array(self, _, experiments: list) -> list:
            self.arrays += 1
            if self.arrays == 2:
                raise FailedJobError("sbatch: error: Unable to contact slurm controller (connect failure)")
            return [SimpleNamespace(job_id=f"7_{number}") for number, _ in enumerate(experiments)]

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(queue, "largest_array", lambda: 3)
    folder = SimpleNamespace(path=tmp_path / "default" / "run")
    tasks = [SimpleNamespace(key=str(number), folder=folder, experiment=None) for number in range(3)]
    own: dict[str, str] = {}
    with pytest.raises(ConfigError, match="SLURM cannot be reached"):
        Slurm({"max_num_timeout": 1}).submit(tasks, own)  # type: ignore[arg-type]
    assert own == {"0": "7_0", "1": "7_1"}


def test_ids_of_jobs_and_arrays(monkeypatch) -> None:
    answer = "12|0|RUNNING|None\n12|1|PENDING|Resources\n13|N/A|CANCELLED|None\n"
    monkeypatch.setattr(queue, "ask", lambda *command: answer)
    assert queue.jobs() == {
        "12_0": Job("RUNNING", "None"), "12_1": Job("PENDING", "Resources"), "13": Job("CANCELLED", "None"),
    }  # fmt: skip
    monkeypatch.setattr(queue, "ask", lambda *command: "12_0|CANCELLED by 0\n")
    assert queue.history(["12_0"]) == {"12_0": Job("CANCELLED")}


@pytest.mark.parametrize(("silences", "asked"), [(0, 1), (2, 3), (99, len(REQUEUE_PAUSES) + 1)])
def test_a_warned_job_asks_again_to_be_requeued(monkeypatch, capsys, silences: int, asked: int) -> None:
    """A controller may be away when the warning comes; one that stays away is a sentence, not a traceback."""
    asks: list[int] = []

    def handler(number: int, frame: object) -> None:
        asks.append(number)
        if len(asks) <= silences:
            raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "7_0"])
        sys.exit(-1)

    monkeypatch.setattr("dstrun.launcher.slurm.time.sleep", lambda seconds: None)
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        requeue_patiently()
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(asks) == asked
    assert ended.value.code == (1 if silences == 99 else -1)
    assert ("the same command continues it" in capsys.readouterr().err) == (silences == 99)
