"""Processes side by side, each with a timeout, heard line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_phases.child import MARK, Found
from gpu_phases.slot import Slot

POLL_S = 0.1


@dataclass
class Job:
    """A process of ``gpu_phases.child``.

    Attributes:
        name: of its files.
        target: MODULE:FUNCTION.
        arguments: of the function.
        checks: what it reports on, so that what it does not come to is told, too.
        timeout: in seconds.
        folder: where it runs.
    """

    name: str
    target: str
    arguments: dict[str, Any]
    checks: Sequence[str] = ()
    timeout: float = 120.0
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    heard: set[str] = field(default_factory=set)
    error: str = ""
    _read: int = 0
    _out: Path = Path()

    def start(self, slot: Slot) -> None:
        """Start the process; its output goes to files."""
        self._out = slot.work / f"{self.name}.out"
        command = [sys.executable, "-m", "gpu_phases.child", self.target, json.dumps(self.arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(self._out, "wb") as out, open(self._out.with_suffix(".err"), "wb") as error:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        self.began = time.monotonic()

    def listen(self) -> list[Found]:
        """Return what the process has found since the last call."""
        with open(self._out, "rb") as out:
            out.seek(self._read)
            data = out.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        lines = data.decode(errors="replace").splitlines()
        found = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
        self.heard |= {one["check"] for one in found if "check" in one}
        self.error = next((one["error"] for one in found if "error" in one), self.error)
        return [one for one in found if "error" not in one]

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process is not None and self.process.poll() is not None

    def ask(self) -> None:
        """Ask the process to save and end."""
        if self.process is not None and not self.ended():
            self.process.terminate()

    def kill(self) -> None:
        """End the process and what it has started."""
        if self.process is not None and not self.ended():
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def why(self) -> str:
        """Return what a process failed of: what it told, or the last line of its error output."""
        text = self._out.with_suffix(".err").read_text(errors="replace").strip()
        code = self.process.returncode if self.process is not None else None
        return self.error or f"exit code {code}: {text.splitlines()[-1][:300] if text else 'nothing said'}"


def run(slot: Slot, jobs: Sequence[Job], workers: int, deadline: float) -> None:
    """Run jobs side by side in their order, and note what they find; what is left at the deadline is cut, and told."""
    waiting, busy = list(jobs), list[Job]()
    while (waiting or busy) and time.monotonic() < deadline:
        while waiting and len(busy) < workers:
            job = waiting.pop(0)
            job.start(slot)
            busy.append(job)
        time.sleep(POLL_S)
        for job in list(busy):
            late = time.monotonic() - job.began > job.timeout
            if late:
                job.kill()
            ended = job.ended()
            for found in job.listen():
                slot.hear(found)
            if ended:
                busy.remove(job)
                close(slot, job, f"not within {job.timeout:.0f} s" if late else "")
    for job in busy:
        job.kill()
        for found in job.listen():
            slot.hear(found)
        close(slot, job, "the phase was over first")
    for job in waiting:
        for name in job.checks:
            slot.check(name, "cut", "not begun when the phase was over")


def close(slot: Slot, job: Job, cut: str) -> None:
    """Note for the checks that a job has ended without."""
    missing = [name for name in job.checks if name not in job.heard]
    for name in missing:
        slot.check(name, "cut" if cut else "failed", cut or job.why())
    if not job.checks and cut:
        slot.say(f"cut     {job.name}: {cut}")
    elif job.process is not None and job.process.returncode and not missing and not cut:
        slot.check(job.name, "failed", job.why())
