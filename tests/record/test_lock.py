"""One process holds a run, however others ended, on disks with and without locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstrun.record import lock as module
from dstrun.record.lock import DOUBT_SECONDS, SILENT_SECONDS, Busy, Lock

HOLD = """
import os, sys, time
from pathlib import Path
from dstrun.record.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
child = os.fork() if "fork" in sys.argv else 1
if child:
    print(child, flush=True)
time.sleep(60)
"""
"""Hold a run until killed, with a forked child if asked; tell the child's pid."""


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=["locks", "no locks"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with the kernel's locks, and one that refuses them."""
    if request.param == "no locks":
        refuse_locks(monkeypatch)
    return request.param


def refuse_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Another process that holds the run, and its child."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), "fork"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process, child
    os.kill(child, signal.SIGKILL)
    process.kill()
    process.communicate()


def leave_note(folder: Path, age: float = 0, **changes: object) -> None:
    """Leave the note of an owner on another machine, last refreshed ``age`` seconds ago by the disk's clock."""
    note = Lock(folder).me | {"machine": "other", "host": "node7", "pid": 7} | changes
    path = folder / ".owner"
    path.write_text(json.dumps(note))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))


def take(folder: Path) -> None:
    """Hold the run and let it go."""
    lock = Lock(folder)
    lock.acquire()
    assert lock.owner() == lock.me
    lock.check()
    lock.release()
    assert not (folder / ".owner").exists()


def test_one_holds_it_and_the_other_learns_who(holder: tuple[subprocess.Popen, int], tmp_path: Path) -> None:
    process, _ = holder
    with pytest.raises(Busy, match=f"^{tmp_path.name} is being run by process {process.pid} on "):
        take(tmp_path)
    assert process.poll() is None


def test_killed_with_a_living_child_it_is_free_at_once(
    holder: tuple[subprocess.Popen, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process, child = holder
    process.kill()
    process.wait()
    os.kill(child, 0)
    take(tmp_path)
    assert not caplog.records


def test_held_and_released_again_and_again(disk: str, tmp_path: Path) -> None:
    for _ in range(3):
        take(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_another_machine_that_beats_is_left_alone(disk: str, tmp_path: Path) -> None:
    """Even where this kernel gives the lock: that disk's locks may not reach over machines."""
    leave_note(tmp_path, age=SILENT_SECONDS - 30)
    before = (tmp_path / ".owner").read_text()
    with pytest.raises(Busy, match=r"is being run by process 7 on node7$"):
        take(tmp_path)
    assert (tmp_path / ".owner").read_text() == before


def test_another_machine_that_fell_silent_is_taken_over(
    disk: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_note(tmp_path, age=SILENT_SECONDS + 60)
    take(tmp_path)
    said = f"{tmp_path.name} is taken over from process 7 on node7: no heartbeat for 6 minutes"
    assert [record.message for record in caplog.records] == [said]


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Sleep no second of those that a note is watched for; give them."""
    slept: list[float] = []
    now = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", slept.append)
        patched.setattr(time, "monotonic", lambda: now + sum(slept))
        yield slept


DAMAGE: dict[str, bytes] = {"cut": b'{"tok', "empty": b"", "other": b"[1]", "deep": b"[" * 4000, "bytes": b"\xff\x00"}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_note_costs_its_own_machine_nothing(text: bytes, naps: list[float], tmp_path: Path) -> None:
    """The copy in ``.lock`` says who had the run last."""
    take(tmp_path)
    (tmp_path / ".owner").write_bytes(text)
    take(tmp_path)
    assert naps == []


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_note_of_who_knows_whom_is_watched_for_seconds(
    disk: str, text: bytes, naps: list[float], tmp_path: Path
) -> None:
    (tmp_path / ".owner").write_bytes(text)
    take(tmp_path)
    assert DOUBT_SECONDS <= sum(naps) < DOUBT_SECONDS + 2


def test_a_note_of_a_time_to_come_is_watched_for_seconds(disk: str, naps: list[float], tmp_path: Path) -> None:
    leave_note(tmp_path, age=-86400)
    take(tmp_path)
    assert DOUBT_SECONDS <= sum(naps) < DOUBT_SECONDS + 2


@pytest.mark.parametrize("text", ["", None])
def test_an_owner_that_mends_its_note_is_left_alone(
    text: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a disk whose locks do not reach the other machine, which has a lock of its own and beats."""
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    second.me |= {"machine": "other"}
    note = tmp_path / ".owner"
    if text is None:
        os.utime(note, (time.time() + 86400, time.time() + 86400))
    else:
        note.write_text(text)

    def beat(_: float) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", lambda _: None)
            first.check()
        os.utime(note)

    monkeypatch.setattr(time, "sleep", beat)
    with pytest.raises(Busy):
        second.acquire()
    first.check()
    first.release()


@pytest.mark.parametrize("text", [*DAMAGE.values(), None], ids=[*DAMAGE, "gone"])
def test_who_holds_the_run_signs_again(text: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = Lock(tmp_path)
    lock.acquire()
    (tmp_path / ".owner").unlink()
    if text is not None:
        (tmp_path / ".owner").write_bytes(text)
    lock.check()
    assert lock.owner() == lock.me
    assert "written again" in caplog.text
    lock.release()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_without_locks_a_lost_note_ends_it(monkeypatch: pytest.MonkeyPatch, naps: list[float], tmp_path: Path) -> None:
    refuse_locks(monkeypatch)
    lock = Lock(tmp_path)
    lock.acquire()
    (tmp_path / ".owner").unlink()
    with pytest.raises(Busy):
        lock.check()
    lock.release()


def test_a_removed_lock_frees_no_run_whose_process_lives(holder: tuple[subprocess.Popen, int], tmp_path: Path) -> None:
    (tmp_path / ".lock").unlink()
    with pytest.raises(Busy, match=f"process {holder[0].pid} "):
        take(tmp_path)
    holder[0].kill()
    holder[0].wait()
    take(tmp_path)


def test_of_two_that_find_an_old_note_one_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without locks: the second still believes in the old note when the first has put its own there."""
    refuse_locks(monkeypatch)
    leave_note(tmp_path, age=SILENT_SECONDS + 60)
    first, second = Lock(tmp_path), Lock(tmp_path)
    old = first.owner()
    first.acquire()
    assert old is not None
    monkeypatch.setattr(second, "_gone", lambda *_: "said so")
    monkeypatch.setattr(second, "owner", lambda: old)
    with pytest.raises(Busy):
        second.acquire()
    first.check()
    first.release()


def test_of_two_that_find_no_note_one_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse_locks(monkeypatch)
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    monkeypatch.setattr(second, "owner", lambda: None)
    with pytest.raises(Busy):
        second.acquire()
    first.check()
    first.release()


def test_without_locks_an_owner_on_this_machine_is_gone_when_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Lock(tmp_path).me["machine"]
    leave_note(tmp_path, machine=machine)
    with monkeypatch.context() as patched:
        refuse_locks(patched)
        with pytest.raises(Busy):
            take(tmp_path)
    take(tmp_path)  # here the kernel vouches for it


def test_who_is_taken_over_notices_before_it_writes(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.acquire()
    lock.check()
    leave_note(tmp_path)
    with pytest.raises(Busy, match="has been taken over by process 7 on node7: this process stops"):
        lock.check()
    lock.release()
    assert json.loads((tmp_path / ".owner").read_text())["pid"] == 7


def test_a_living_owner_refreshes_its_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    beats: list[float] = []
    lock = Lock(tmp_path, lambda: beats.append(time.monotonic()))
    lock.acquire()
    os.utime(tmp_path / ".owner", (0, 0))
    deadline = time.monotonic() + 30
    while not ((tmp_path / ".owner").stat().st_mtime and len(beats) > 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / ".owner").stat().st_mtime > 0
    assert len(beats) > 1
    leave_note(tmp_path)
    os.utime(tmp_path / ".owner", (0, 0))
    time.sleep(0.1)
    assert (tmp_path / ".owner").stat().st_mtime == 0, "another's note is not refreshed"
    lock.release()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Be job 40 of a cluster whose ``squeue`` gives a set answer to a question about one job."""

    def answer(job: str, shell: str) -> Path:
        tools, run = tmp_path / "bin", tmp_path / "run"
        tools.mkdir()
        run.mkdir()
        squeue = tools / "squeue"
        squeue.write_text(f'#!/bin/sh\ncase "$*" in *--jobs={job}) {shell};; *) exit 9;; esac\n')
        squeue.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_CLUSTER_NAME", "lab")
        monkeypatch.setenv("SLURM_JOB_ID", "40")
        return run

    return answer


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("echo COMPLETED", "SLURM says that job 12_0 is COMPLETED"),
        ("echo PENDING", "SLURM says that job 12_0 is PENDING"),
        ("echo NODE_FAIL", "SLURM says that job 12_0 is NODE_FAIL"),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", "SLURM says that job 12_0 is forgotten"),
        ("echo RUNNING", None),
        ("echo COMPLETING", None),
        ("echo Unable to contact slurm controller >&2; exit 1", None),
        (":", None),
    ],
)
def test_slurm_knows_whether_a_job_is_over(says: str, why: str | None, slurm, caplog: pytest.LogCaptureFixture) -> None:
    run = slurm("12_0", says)
    leave_note(run, job="12_0", cluster="lab")
    if why is None:
        with pytest.raises(Busy, match=r"process 7 on node7 \(SLURM job 12_0\)"):
            take(run)
    else:
        take(run)
        assert caplog.records[0].message.endswith(why)


def test_the_job_of_another_cluster_is_not_asked_for(slurm) -> None:
    run = slurm("12", "echo COMPLETED")
    leave_note(run, job="12", cluster="elsewhere")
    with pytest.raises(Busy):
        take(run)


def test_a_requeued_job_follows_itself(slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    run = slurm("40", "echo RUNNING")
    leave_note(run, job="40", cluster="lab", restarts=None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    take(run)


def test_a_requeued_job_waits_for_its_own_end(slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its earlier start still holds the lock on this machine, and is killed while the new one waits; others do not."""
    run = slurm("40", "echo RUNNING")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        process.kill()
        process.communicate()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with pytest.raises(Busy):
        take(run)
    assert not naps
    monkeypatch.setenv("SLURM_JOB_ID", "40")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    take(run)
    assert len(naps) == 1


def test_an_array_task_is_named_as_slurm_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    assert module.job_id() == "15"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert module.job_id() == "12_3"
