"""Runs on this machine, several at once, one process each: a crash ends one run and no other.

Processes are forked from one that has imported PyTorch and done nothing else, so that each starts at once.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Annotated, Any

from dstrun.config import Experiment
from dstrun.launcher.task import BUSY, Exit, Stopped, Task, cores
from dstrun.option import AtLeast, ConfigError, option
from dstrun.record.lock import BUSY_CODE

if TYPE_CHECKING:
    from dstrun.launcher.sweep import Ends, Plan


@option
class Local:
    """Settings of ``hydra/launcher=local``.

    ``workers`` is how many runs train at once; null is ``runs_per_gpu`` on each GPU, or one run where there is none.
    The cores are divided among them, GPUs go round.
    """

    workers: Annotated[int, AtLeast(1)] | None = None
    runs_per_gpu: Annotated[int, AtLeast(1)] = 1

    def check(self, experiments: Sequence[Experiment]) -> None:
        """Refuse what cannot be started.

        Raises:
            ConfigError: a run wants several processes.
        """
        if any(e.config.get("distributed") for e in experiments):
            raise ConfigError(
                "distributed=ddp makes no sense with hydra/launcher=local, which gives each run one process: "
                "start the run by torchrun, or choose hydra/launcher=slurm"
            )

    def run(self, tasks: Sequence[Task], plan: Plan) -> Ends:
        """Train tasks, and yield each as it ends; ``Stopped`` and Ctrl-C ask those that train to save and end."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dstrun.launcher.work", "torch._dynamo"])  # the second for a first step
        places, waiting = deque(self.places()), deque(tasks)
        running: dict[Any, tuple[Any, Task, Place]] = {}
        try:
            while waiting or running:
                while waiting and places:
                    task, place = waiting.popleft(), places.popleft()
                    task.begin()
                    arguments = (task.experiment, place, os.getcwd(), dict(os.environ))
                    process = context.Process(target=child, args=arguments, name=task.id)
                    process.start()
                    running[process.sentinel] = process, task, place
                for sentinel in wait(list(running)):
                    process, task, place = running.pop(sentinel)
                    process.join()
                    places.append(place)
                    yield task, Exit(told(process.exitcode))
        except (KeyboardInterrupt, GeneratorExit, Stopped):
            stop([process for process, _, _ in running.values()])
            raise

    def places(self) -> list[Place]:
        """List where runs can train at once."""
        gpus = visible_gpus()
        count = self.workers or max(1, len(gpus) * self.runs_per_gpu)
        threads = max(1, cores() // count) if count > 1 else None
        return [Place(threads, gpus[i % len(gpus)] if gpus else None) for i in range(count)]


@dataclass(frozen=True)
class Place:
    """A share of this machine: CPU threads (all if ``None``), and the GPU as ``CUDA_VISIBLE_DEVICES`` names it."""

    threads: int | None
    gpu: str | None


def visible_gpus() -> list[str]:
    """Name the GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` does; without starting CUDA."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [word for word in chosen.split(",") if word not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]


def child(experiment: Experiment, place: Place, folder: str, environment: dict[str, str]) -> None:
    """Train one run in a process of its own, out of reach of the terminal's Ctrl-C, which its parent passes on."""
    from dstrun.launcher.work import work

    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.update(environment)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    sys.exit(work(experiment, place.threads))


def told(code: int) -> str:
    """Say how a process ended."""
    if code == BUSY_CODE:
        return BUSY
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as when memory runs out"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def stop(processes: Sequence[Any]) -> None:
    """Let processes save their runs; kill them where Ctrl-C comes once more."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise
