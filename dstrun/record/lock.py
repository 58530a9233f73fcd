"""Lock a run for one process, on one machine and on file systems shared by many machines.

Two things say who holds a run. A lock of the kernel (``fcntl.lockf`` on ``.lock``), which is free however its process
ended, and which may reach over machines or not, depending on how the file system is mounted; some have none. And a
note (``.owner``): who, where, in which job, with a token. It is created exclusively and refreshed while the process
lives. A note that is left over is taken away only when its owner is surely gone (``_gone``); and as "surely" rests on
others' clocks and schedulers, an owner looks for its token before whatever it writes, and stops where it is another's.

A note that says nothing (damaged, emptied) or bears a time to come is no proof of an owner. Its copy in ``.lock`` says
whether it was one of this machine, whose lock would not be free. Else an owner that lives mends it within a beat; one
that does so for nobody within ``DOUBT_SECONDS`` is left over.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstrun.record.sealed import Damaged, parse, seal
from dstrun.record.valid import SILENT_SECONDS
from dstrun.system.process import host, machine, started

BEAT_SECONDS = 10
DOUBT_SECONDS = 2.5 * BEAT_SECONDS
"""How long a note that says nothing, or is of a time to come, is watched for somebody who mends it."""
AHEAD_SECONDS = 60
"""A note that is so far ahead of the file system's clock is of a time to come; those of machines differ by less."""
WAIT_SECONDS = 60
"""How long a requeued job waits for the end of its own earlier start, which SLURM may still be killing."""

NOTE_BYTES = 4096

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system without locks answers."""

LIVING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "CONFIGURING", "SIGNALING", "STAGE_OUT", "RESIZING"}
"""States of a SLURM job of which a process may be left; any other state says that there is none."""

BUSY_CODE = 75
"""Exit code of a process that left its run to another; EX_TEMPFAIL of sysexits.h."""

log = logging.getLogger("dstrun")


class Busy(Exception):
    """Another process works on this run; the message says which."""


class Lock:
    """The hold of this process on a run's folder.

    Args:
        folder: of the run; it exists.
        beat: called every ``BEAT_SECONDS`` from a thread while the run is held.
    """

    def __init__(self, folder: Path, beat: Callable[[], None] = lambda: None) -> None:
        self.folder, self.beat = folder, beat
        self.files = self.lock_path, self.note_path = folder / ".lock", folder / ".owner"
        self.me = _identity()
        self._file: int | None = None
        self._locked = False
        self._doubted: tuple[object, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True, name="heartbeat")

    @property
    def locked(self) -> bool:
        """Whether the kernel keeps every other process from the run."""
        return self._locked

    def acquire(self) -> None:
        """Lock the run, or wait a little if its owner is an earlier start of the same SLURM job.

        Raises:
            Busy: another process holds it.
            OSError: the folder cannot be written.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._claim()
                break
            except Busy:
                owner = self.owner() or {}
                same_job = owner.get("job") is not None and owner["job"] == self.me["job"]
                if self._doubted is None and not (same_job and time.monotonic() <= deadline):
                    raise
                time.sleep(1)
        try:
            self._thread.start()
        except RuntimeError as error:  # too little memory for a thread, but perhaps enough to say so
            log.warning("%s is locked without a heartbeat between epochs: %s", self.folder.name, error)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the run."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        for _ in range(3):  # a network disk hesitates
            try:
                if self._mine():
                    self.note_path.unlink(missing_ok=True)
                break
            except OSError:
                time.sleep(0.05)
        self._unlock()

    def check(self) -> None:
        """Make sure that the run is still this process's, before something is written.

        Raises:
            Busy: another process has taken it over.
        """
        for _ in range(3):
            if self._mine() or self._mend():
                if self._thread.ident is None:
                    with suppress(OSError):
                        os.utime(self.note_path)
                return
            time.sleep(0.3)  # a network disk hesitates, or one that took the note by mistake is putting it back
        raise Busy(f"{self.folder.name} has been taken over by {describe(self.owner())}: this process stops")

    def owner(self) -> dict[str, Any] | None:
        """Read the note; ``None`` where there is none, an empty one where it is cut short."""
        return _read(self.note_path)

    def _claim(self) -> None:
        # Opened once: closing any other descriptor of the file would drop the process's lock. Not flock, which a
        # forked child would keep.
        self._file = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            self._locked = self._lock()
            if (owner := self.owner()) is not None:
                self._take_over(owner)
            self._sign()
        except BaseException as error:
            self._unlock()
            if isinstance(error, FileExistsError):  # another was faster
                raise self._busy() from error
            raise

    def _sign(self) -> None:
        text = seal(self.me).encode()
        with open(self.note_path, "xb") as file:  # exclusively, which every file system can
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                self.note_path.unlink()
                raise
        if self._locked and self._file is not None:
            with suppress(OSError):  # a copy, for whoever finds the note damaged
                os.pwrite(self._file, text, 0)
                os.ftruncate(self._file, len(text))

    def _mend(self) -> bool:
        """Sign again where the note was lost or damaged while the kernel vouches that nobody else holds the run."""
        if not self._locked:
            return False
        try:
            if (owner := self.owner()) == {}:
                time.sleep(0.05)  # another may be about to write its own
                owner = self.owner()
            if owner:
                return False
            if owner is not None:
                self._set_aside(owner)
            self._sign()
        except (OSError, Busy):
            return False
        log.warning("%s: its .owner file was lost or damaged, and is written again", self.folder.name)
        return True

    def _lock(self) -> bool:
        """Acquire the kernel's lock; return ``False`` if the file system has none."""
        assert self._file is not None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._busy() from error
            raise
        return True

    def _unlock(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._locked = False

    def _take_over(self, owner: dict[str, Any]) -> None:
        """Remove the ``.owner`` file of an owner that has ended; of several processes that try, one succeeds."""
        why = self._gone(owner)
        if why is None:
            raise self._busy()
        self._set_aside(owner)
        if owner.get("machine") != self.me["machine"]:
            log.warning("%s is taken over from %s: %s", self.folder.name, describe(owner), why)

    def _set_aside(self, owner: dict[str, Any]) -> None:
        """Remove a note, unless it is no longer the one that was read."""
        aside = self.folder / f".owner.{self.me['token']}"
        try:
            os.rename(self.note_path, aside)
        except FileNotFoundError:
            return
        try:
            if (found := _read(aside)) != owner:  # a faster one's, put there meanwhile
                with suppress(FileNotFoundError):
                    os.link(aside, self.note_path)
                raise Busy(f"{self.folder.name} is being run by {describe(found)}")
        finally:
            aside.unlink(missing_ok=True)

    def _gone(self, owner: dict[str, Any]) -> str | None:
        """Return why an owner is surely gone; ``None`` where it may live.

        Args:
            owner: what the note says.
        """
        known = owner or self._copy()
        if self._locked and known.get("machine") == self.me["machine"] and not _lives_here(known):
            return "its lock is free"
        job = owner.get("job")
        if job is not None and owner.get("cluster") == self.me["cluster"]:
            if job == self.me["job"] and owner.get("restarts") != self.me["restarts"]:
                return f"SLURM has started job {job} again"
            if job != self.me["job"] and (state := _job_state(job)) not in LIVING | {None}:
                return f"SLURM says that job {job} is {state}"
        silent = self._silent_seconds()
        if silent >= SILENT_SECONDS:
            return f"no heartbeat for {silent / 60:.0f} minutes"
        if owner and silent > -AHEAD_SECONDS:
            self._doubted = None
        elif (seconds := self._unmended(owner)) >= DOUBT_SECONDS:
            fault = "dated in the future" if owner else "damaged"
            return f"its .owner file is {fault}, and was not repaired for {seconds:.0f} s"
        return None

    def _copy(self) -> dict[str, Any]:
        """Read who had the lock last."""
        assert self._file is not None
        return _parsed(os.pread(self._file, NOTE_BYTES, 0))

    def _unmended(self, owner: dict[str, Any]) -> float:
        """Measure for how long a note that says nothing has been watched without a change."""
        try:
            stamp = owner, self.note_path.stat().st_mtime_ns
        except OSError:
            stamp = owner, None
        if self._doubted is None or self._doubted[0] != stamp:
            self._doubted = stamp, time.monotonic()
        return time.monotonic() - self._doubted[1]

    def _silent_seconds(self) -> float:
        """Measure since when the note was not refreshed, by the file system's clock alone."""
        probe = self.folder / f".now.{self.me['token']}"
        try:
            probe.touch()
            return probe.stat().st_mtime - self.note_path.stat().st_mtime
        except FileNotFoundError:
            return 0
        finally:
            probe.unlink(missing_ok=True)

    def _busy(self) -> Busy:
        silent = self._silent_seconds()
        hint = f", no heartbeat for {silent / 60:.0f} minutes: if it has ended, remove {self.folder}/.lock and .owner"
        return Busy(
            f"{self.folder.name} is being run by {describe(self.owner())}{hint if silent >= SILENT_SECONDS else ''}"
        )

    def _mine(self) -> bool:
        return (self.owner() or {}).get("token") == self.me["token"]

    def _refresh(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError, Busy):  # a network disk may be away for a while
                if self._mine() or self._mend():
                    os.utime(self.note_path)
                    self.beat()


def _read(path: Path) -> dict[str, Any] | None:
    """Read a note; an empty one where it is damaged."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return {}
        with open(path, "rb") as file:
            return _parsed(file.read(NOTE_BYTES))
    except FileNotFoundError:
        return None
    except OSError:
        return {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        note = parse(text)
    except Damaged:
        return {}
    note.pop("schema", None)
    return note if isinstance(note.get("token"), str) else {}


def _lives_here(owner: dict[str, Any]) -> bool:
    """Return whether another process of this machine surely is the owner, though its lock file was removed."""
    pid, start = owner.get("pid"), owner.get("started")
    return isinstance(pid, int) and pid != os.getpid() and start is not None and started(pid) == start


def describe(owner: dict[str, Any] | None) -> str:
    """Name an owner for readers."""
    if not owner:
        return "another process"
    job = f" (SLURM job {owner['job']})" if owner.get("job") else ""
    return f"process {owner.get('pid')} on {owner.get('host')}{job}"


def job_id() -> str | None:
    """Return the id of the SLURM job this process runs in, ``12`` or ``12_0`` for a task of an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _identity() -> dict[str, Any]:
    return {
        "token": uuid.uuid4().hex,
        "host": host(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": started(os.getpid()),
        "job": job_id(),
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "restarts": os.environ.get("SLURM_RESTART_COUNT"),
    }


def _job_state(job: str) -> str | None:
    """Query SLURM for a job's state; ``None`` if it is unknown."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return "forgotten" if "Invalid job id" in answer.stderr else None
    states = answer.stdout.split()
    return next((state for state in states if state in LIVING), states[0] if states else None)
