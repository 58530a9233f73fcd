"""A sweep from first to last run: what is left to do, what is retried, and a summary of every run that is not done."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dstrun.config.experiment import Experiment
from dstrun.launcher.live import Live
from dstrun.launcher.task import BUSY, Ending, Exit, Stopped, Task
from dstrun.record import sealed
from dstrun.record.lock import BUSY_CODE
from dstrun.system.bounded import refuse_link
from dstrun.system.process import host, machine, started
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, sentence, why
from dstrun.system.wording import counted

SHOWN = 3
"""How many runs that repeat another are named."""

BEAT_SECONDS = 30.0
"""How often a client shows that it lives."""

Ends = Generator[tuple[Task, Exit], None, None]


class Engine(Protocol):
    """Where tasks train; the launchers' part of a sweep. ``outlives`` says whether runs go on without the client."""

    outlives: ClassVar[bool]

    def check(self, tasks: Sequence[Task], plan: Plan) -> None:
        """Refuse what cannot be started, before anything is; ``tasks`` are those that are not done.

        Raises:
            ConfigError: said in one sentence.
        """
        ...

    def run(self, tasks: Sequence[Task], plan: Plan) -> Ends:
        """Train tasks, and yield each as it ends; ``Stopped`` thrown into it stops the others, whose ends follow."""
        ...


class Plan:
    """``results/<experiment>/.sweeps/<start>-<pid>.json``: which runs a sweep wants, and the job of each.

    Args:
        tasks: that the sweep wants done.
        launcher: by name.
        command: as typed.
    """

    def __init__(self, tasks: Sequence[Task], launcher: str, command: Sequence[str]) -> None:
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        self.name = f"{stamp}-{os.getpid()}.json"
        self.folders = {task.key: task.folder.path.parent for task in tasks}
        self.jobs: dict[str, str | None] = {task.key: None for task in tasks}
        self._submission = {
            "schema": 1,
            "command": list(command),
            "started": now,
            "launcher": launcher,
            "host": host(),
            "machine": machine(),
            "pid": os.getpid(),
            "process_started": started(os.getpid()),
            "beats": True,
        }
        self._beaten = time.monotonic()
        self._warned = False
        self.live = Live(tasks, {})
        """Shows a person how the runs stand."""

    def write(self, ended: float | None = None) -> None:
        """Replace the file, one in each experiment's folder; without it the sweep goes on, and fewer see it."""
        try:
            self._write(ended)
        except OSError as error:
            if not self._warned:
                say(f"the runs of this sweep cannot be listed for `dstrun status`: {sentence(error) or why(error)}")
            self._warned = True

    def beat(self) -> None:
        """Show how runs stand, and, by the time of its file now and then, that the client lives."""
        self.live.look()
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        for folder in set(self.folders.values()):
            with suppress(OSError):
                os.utime(folder / ".sweeps" / self.name)

    def _write(self, ended: float | None) -> None:
        for folder in set(self.folders.values()):
            mine = [(Path(key).name, job) for key, job in self.jobs.items() if self.folders[key] == folder]
            runs = [{"id": name, "job": job} for name, job in mine]
            refuse_link(folder / ".sweeps")
            (folder / ".sweeps").mkdir(parents=True, exist_ok=True)
            written = self._submission | {"ended": ended, "runs": runs}
            sealed.write(folder / ".sweeps" / self.name, written)

    def earlier(self) -> dict[str, str]:
        """Return the last job that other sweeps have submitted for each run, by its folder."""
        jobs: dict[str, str] = {}
        for folder in set(self.folders.values()):
            for file in sorted((folder / ".sweeps").glob("*.json")):
                with suppress(KeyError, TypeError):
                    runs = (sealed.read_if_whole(file) or {})["runs"]
                    jobs |= {
                        str(folder / run["id"]): run["job"] for run in runs if run["job"] and file.name != self.name
                    }
        return jobs


class Sweep:
    """Runs that belong together.

    Args:
        experiments: composed and checked; one that comes twice is trained once.
        engine: where they train.
        launcher: the engine's name.
        command: as typed.
    """

    def __init__(
        self, experiments: Sequence[Experiment], engine: Engine, launcher: str, command: Sequence[str] = ()
    ) -> None:
        wanted = [Task(experiment) for experiment in experiments]
        first: dict[str, Task] = {}
        self.repeated = [(task, first[task.key]) for task in wanted if first.setdefault(task.key, task) is not task]
        self.tasks = list(first.values())
        self.engine = engine
        self.retry, self.fail_fast = (experiments[0].config[key] for key in ("retry", "fail_fast"))
        self._check_images()
        self.endings = {task.key: task.end(Exit("")) for task in self.tasks if task.done}
        self.plan = Plan(self.tasks, launcher, command)
        self.plan.live = Live(self.tasks, self.endings)
        if left := [task for task in self.tasks if task.key not in self.endings]:
            engine.check(left, self.plan)

    def run(self) -> list[Ending]:
        """Train what is not done, failures again up to ``retry`` times; give the ending of each.

        Raises:
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; runs of this machine have been saved.
        """
        left = [task for task in self.tasks if task.key not in self.endings]
        for task, before in self.repeated[:SHOWN]:
            say(f"{' '.join(apart(task, before)) or task.id} is the same run as another: it trains once")
        if len(self.repeated) > SHOWN:
            say(f"... and {len(self.repeated) - SHOWN} more")
        say(counted(len(self.tasks), "run") + (f", {len(self.endings)} of them done before" if self.endings else ""))
        if not left:
            return self._all()
        folders = sorted({relative(folder) for folder in self.plan.folders.values()})
        say(f"follow: dstrun status --watch {shlex.join(folders)}")
        self.plan.write()
        outlived = False
        try:
            with signals_interrupt(), self.plan.live:
                for attempt in range(1 + self.retry):
                    if not left:
                        break
                    if attempt:
                        say(f"retry {attempt} of {self.retry}: {counted(len(left), 'run')}")
                    left = self._attempt(left)
        except KeyboardInterrupt:
            outlived = self.engine.outlives
            done = sum(task.done for task in self.tasks)
            saved = sum(task.status().get("state") == "interrupted" for task in self.tasks)
            say(
                f"interrupted: {done} of {counted(len(self.tasks), 'run')} done, {saved} saved; "
                "the same command continues"
            )
            raise
        finally:
            if not outlived:  # else what waits in a queue is still to come
                self.plan.write(ended=time.time())
        for task in self.tasks:
            if task.key in self.endings and self.endings[task.key].state == BUSY and task.done:
                self.endings[task.key] = task.end(Exit(""))  # whoever had it has ended it meanwhile
        return self._all()

    def _check_images(self) -> None:
        """Refuse runs that are done on other images than those here.

        Raises:
            ConfigError: said in one sentence.
        """
        found: dict[Any, str | None] = {}
        for task in self.tasks:
            try:
                record = task.folder.record()
            except ConfigError:  # that run's trouble, told at its end
                continue
            if record is not None:
                dataset = task.experiment.build("dataset")
                if dataset not in found:  # which reads the files of a data set
                    found[dataset] = dataset.found()
                task.folder.check_images(record, dataset, found[dataset])

    def _attempt(self, tasks: list[Task]) -> list[Task]:
        """Train tasks once; returns those to be tried again."""
        again, stopped = [], False
        with closing(self.engine.run(tasks, self.plan)) as ended:
            pair = next(ended, None)
            while pair is not None:
                task, exit = pair
                ending = self.endings[task.key] = task.end(exit)
                self.plan.live.end(task)
                self._tell(ending)
                if ending.transient:
                    again.append(task)
                if ending.failed and self.fail_fast and not stopped:
                    stopped = True
                    say("fail_fast=true: the others are stopped")
                    pair = stop(ended)
                else:
                    pair = next(ended, None)
        return [] if stopped else again

    def _tell(self, ending: Ending) -> None:
        outcome = f"top-1 {ending.top1:.2f} %" if ending.top1 is not None else ending.message
        say(f"[{len(self.endings)}/{len(self.tasks)}] {ending.id}: {ending.state}{', ' if outcome else ''}{outcome}")

    def _all(self) -> list[Ending]:
        """Return every run's ending; one that was stopped before it started has not started."""
        for task in (task for task in self.tasks if task.key not in self.endings):
            self.endings[task.key] = (
                task.end(Exit("stopped"))
                if task.begun
                else Ending(task.id, "not started", "stopped before it started", task.folder.path, task.log)
            )
        return [self.endings[task.key] for task in self.tasks]


def apart(task: Task, other: Task) -> list[str]:
    """Return the words of a run, but flags, that are not among those of another."""
    found = [word for word in task.experiment.command if word not in other.experiment.command]
    return [word for word in found if not word.startswith("-")]


def stop(ended: Ends) -> tuple[Task, Exit] | None:
    """Stop what an engine still trains; returns the first end of these."""
    try:
        return ended.throw(Stopped())
    except (StopIteration, Stopped):
        return None


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP unless it is ignored, as Ctrl-C, so that runs are saved when the client has to end.

    Ctrl-C alone acts again: a closing terminal sends SIGHUP more than once.
    """
    polite = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]

    def interrupt(*_: Any) -> None:
        for number in polite:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [*polite, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else [])]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summarize(endings: Sequence[Ending]) -> int:
    """Print how a sweep's runs ended, every failure with its last words and its log.

    Returns:
        The exit code: 0 only where every run is done, 75 where the others are being run elsewhere.
    """
    done = sum(ending.state == "done" for ending in endings)
    say(f"{done} of {counted(len(endings), 'run')} done")
    busy = [ending for ending in endings if ending.state == BUSY]
    failed = [ending for ending in endings if ending.failed]
    if busy:
        say("\n".join(["running elsewhere:", *(f"  {ending.id}: {ending.message}" for ending in busy)]))
    if failed:
        say("not done:")
    for ending in failed:
        say(f"  {ending.id}: {ending.state}{': ' if ending.message else ''}{ending.message}")
        for line in ending.tail():
            say(f"    | {line}")
        if os.path.exists(ending.log):
            say(f"    log: {relative(ending.log)}")
    if failed or busy:
        say("the same command runs what is not done")
    folders = sorted({relative(ending.folder.parent) for ending in endings})
    say(f"next: dstrun table {shlex.join(folders)}")
    return 1 if failed else BUSY_CODE if busy else 0


def relative(path: Path) -> str:
    """Format a path as seen from here, where it lies below."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
