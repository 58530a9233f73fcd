"""Runs on this machine, several at once: a process for each, so that a crash ends one run only, or for several.

Processes are forked from one that has imported PyTorch and done nothing else, so that each starts at once.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import util
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.experiment import Experiment
from dstrun.config.option import AtLeast, option
from dstrun.launcher.task import BUSY, Exit, Stopped, Task, cores
from dstrun.record.lock import BUSY_CODE
from dstrun.system.process import gone, started
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, sentence, why
from dstrun.system.wording import counted

if TYPE_CHECKING:
    from dstrun.launcher.sweep import Ends, Plan

BEAT_SECONDS = 30.0
"""How often a client that waits says that it lives."""
LOOK_SECONDS = 0.2
"""How often it looks at processes whose end nobody tells it."""
UNSEEN = 255
"""Exit code that multiprocessing makes up where the server that forks was killed."""
ALIKE = ("device", "precision", "deterministic", "threads")
"""Settings of what PyTorch has once a process: runs that share one agree on them, which is simpler than to change them
at every turn."""
SOCKET_BYTES = 104
"""A socket's path is shorter."""


@option
class Local:
    """Settings of ``hydra/launcher=local``.

    ``workers`` is how many processes train at once; null is ``runs_per_gpu`` on each GPU, or one where there is none.
    The cores are divided among them, GPUs go round. Each trains up to ``together`` runs, which take turns.
    """

    workers: Annotated[int, AtLeast(1)] | None = None
    runs_per_gpu: Annotated[int, AtLeast(1)] = 1
    together: Annotated[int, AtLeast(1)] = 1

    def check(self, tasks: Sequence[Task], plan: Plan) -> None:
        """Refuse what cannot be started.

        Raises:
            ConfigError: a run wants several processes, or a GPU where there is none.
        """
        if any(task.experiment.config["device"] == "cuda" for task in tasks) and not visible_gpus():
            raise ConfigError("device=cuda is not available: this machine has no GPU")
        if any(task.experiment.config.get("distributed") for task in tasks):
            raise ConfigError(
                "distributed=ddp makes no sense with hydra/launcher=local, which gives each run one process: "
                "start the run by torchrun, or choose hydra/launcher=slurm"
            )

    outlives: ClassVar[bool] = False

    def run(self, tasks: Sequence[Task], plan: Plan) -> Ends:
        """Train tasks, and yield each as it ends; ``Stopped`` and Ctrl-C ask those that train to save and end."""
        places, waiting, running = deque(self.places()), deque(tasks), list[Worker]()
        context = fork_server()
        try:
            while waiting or running:
                while waiting and places:
                    some = taken(waiting, min(self.together, -(-len(waiting) // len(places))))
                    place = places.popleft()
                    for task in some:
                        task.begin()
                    try:
                        running.append(Worker(context, some, place))
                        plan.live.start(some)
                    except (OSError, EOFError) as error:
                        places.append(place)
                        reason = f"no process can be started for it: {sentence(error) or why(error)}"
                        for task in some:
                            yield task, Exit(reason, state="failed", message=reason)
                plan.beat()
                watch(running)
                for worker in list(running):
                    if worker.over:
                        running.remove(worker)
                        places.append(worker.place)
                    for end in worker.ends():
                        try:
                            yield end
                        except Stopped:
                            waiting.clear()
                            for other in running:
                                other.signal(signal.SIGTERM)
        except (KeyboardInterrupt, GeneratorExit):
            stop(running)
            raise

    def places(self) -> list[Place]:
        """List where processes can train at once; of the runs that share one, one at a time computes on the CPU."""
        gpus = visible_gpus()
        count = self.workers or max(1, len(gpus) * self.runs_per_gpu)
        threads = max(1, cores() // count) if count > 1 else None
        return [Place(threads, gpus[i % len(gpus)] if gpus else None) for i in range(count)]


def taken(waiting: deque[Task], count: int) -> list[Task]:
    """Remove the next of some tasks, and as many in all as can share its process; return them."""
    first = waiting.popleft()
    wanted = [first.experiment.config[key] for key in ALIKE]
    alike = (task for task in waiting if [task.experiment.config[key] for key in ALIKE] == wanted)
    others = list(islice(alike, count - 1))
    for task in others:
        waiting.remove(task)
    return [first, *others]


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


class Worker:
    """A process that trains a run, or several.

    Args:
        context: of multiprocessing.
        tasks: to train.
        place: it takes.
    """

    def __init__(self, context: Any, tasks: Sequence[Task], place: Place) -> None:
        self.place, self._tasks = place, dict(enumerate(tasks))
        self._name = ", ".join(task.id for task in tasks)
        try:
            self._start(context)
        except (OSError, EOFError):
            # The server that forks was killed: the next start has another. Whatever else it is, it comes again.
            self._start(context)
        self._started = started(self.process.pid)
        self.over = False
        self.orphan = False
        """Whether nothing tells of its end, as its parent was killed."""
        self._endings: dict[int, tuple[str | None, str, int | None]] = {}

    @property
    def runs(self) -> int:
        """Return how many of its runs have not ended."""
        return len(self._tasks)

    def _start(self, context: Any) -> None:
        self._hears, tells = context.Pipe(duplex=False)
        experiments = [task.experiment for task in self._tasks.values()]
        arguments = (experiments, self.place, os.getcwd(), dict(os.environ), tells)
        self.process = context.Process(target=child, args=arguments, name=self._tasks[0].id)
        with closing(tells):
            self.process.start()

    def sources(self) -> list[Any]:
        """Return what becomes ready when the process ends or says something."""
        return [*([] if self.orphan else [self.process.sentinel]), *([] if self._hears.closed else [self._hears])]

    def look(self) -> None:
        """See whether it has ended, and hear what it says."""
        self.over = self.over or self._has_ended()
        try:
            while not self._hears.closed and self._hears.poll():
                number, state, message, code = self._hears.recv()
                self._endings[number] = state, message, code
        except (OSError, EOFError):
            self._hears.close()
        if self.over:
            self._hears.close()

    def _has_ended(self) -> bool:
        """Return whether it has; the sentinel of one whose parent was killed says nothing."""
        if not self.orphan:
            self.process.join(0)
            if self.process.exitcode is None:
                return False
            self.orphan = self.process.exitcode == UNSEEN and self._started is not None
            if self.orphan and not gone(self.process.pid, self._started):
                say(f"the process that starts runs was killed; {self._name} goes on")
        return not self.orphan or gone(self.process.pid, self._started)

    def ends(self) -> Iterator[tuple[Task, Exit]]:
        """Yield each of its runs that has ended and was not told yet, and how: in its own words, or as seen."""
        for number, task in list(self._tasks.items()):
            state, message, code = self._endings.get(number, (None, "", None))
            if code is not None:
                how = exit_in_words(code)
            elif not self.over:
                continue
            elif self.orphan:
                how = "its end was not observed, as the process that starts runs was killed"
            else:
                how = exit_in_words(self.process.exitcode)
            del self._tasks[number]
            yield task, Exit(how, state=state, message=message)

    def signal(self, number: int) -> None:
        """Send a signal."""
        with suppress(OSError):
            if not gone(self.process.pid, self._started):
                os.kill(self.process.pid, number)


def watch(workers: Sequence[Worker]) -> None:
    """Wait until a process has ended or said something, or for a while; then look at all."""
    sources = [source for worker in workers for source in worker.sources()]
    wait(sources, LOOK_SECONDS if any(worker.orphan for worker in workers) else BEAT_SECONDS)
    for worker in workers:
        worker.look()


def fork_server() -> Any:
    """Return the context in which processes are forked from one that has imported PyTorch, its socket where it fits.

    Raises:
        ConfigError: there is no folder for it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dstrun.launcher.work", "torch._dynamo"])  # the second for a first step
    before, tried = tempfile.tempdir, list[str]()
    try:
        for folder in (None, "/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR")):
            with suppress(OSError):
                tempfile.tempdir = before if folder is None else folder
                place = tempfile.gettempdir()
                tried.append(place)
                if len(os.fsencode(place)) + len("/pymp-12345678/listener-12345678") < SOCKET_BYTES:
                    util.get_temp_dir()  # which multiprocessing remembers
                    break
        else:
            raise ConfigError(
                f"no socket can be created ({', '.join(dict.fromkeys(tried))}): set $TMPDIR to a folder with "
                "a short path"
            )
    finally:
        tempfile.tempdir = before
    return context


def child(
    experiments: Sequence[Experiment], place: Place, folder: str, environment: dict[str, str], tells: Any
) -> None:
    """Train in a process of its own, out of reach of the terminal's Ctrl-C, which its parent passes on."""
    from dstrun.launcher.work import work

    def tell(number: int, state: str | None, message: str, code: int | None = None) -> None:
        with suppress(OSError):  # its parent may have gone
            tells.send((number, state, message, code))

    os.setpgid(0, 0)
    try:
        os.chdir(folder)
    except OSError as error:
        for number in range(len(experiments)):
            tell(number, "failed", f"{folder} cannot be entered: {why(error)}")
        sys.exit(1)
    os.environ.update(environment)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    if len(experiments) > 1:
        from dstrun.launcher.together import work_together

        sys.exit(work_together(experiments, place.threads, tell))
    sys.exit(work(experiments[0], place.threads, partial(tell, 0)))


def exit_in_words(code: int) -> str:
    """Return how a process ended."""
    if code == BUSY_CODE:
        return BUSY
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, often for lack of memory"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def stop(workers: Sequence[Worker]) -> None:
    """Wait until processes have saved their runs, announcing it at once; kill them where Ctrl-C comes once more."""
    for worker in workers:
        worker.signal(signal.SIGTERM)
    left = list(workers)
    if count := sum(worker.runs for worker in workers):
        say(f"saving {counted(count, 'run')}; Ctrl-C again kills {'it' if count == 1 else 'them'}")
    try:
        while left := [worker for worker in left if not worker.over]:
            watch(left)
    except KeyboardInterrupt:
        for worker in left:
            worker.signal(signal.SIGKILL)
        raise
