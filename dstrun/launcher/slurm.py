"""Runs as jobs of a SLURM cluster, submitted by submitit as arrays; followed by their files and the queue.

submitit's own way to wait trusts ``sacct`` and stops at the first job that leaves no result; here a job that dies in
any way is reported as what it is, and the others are waited for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.config.experiment import Experiment
from dstrun.launcher import queue
from dstrun.launcher.queue import Job
from dstrun.launcher.task import BUSY, Exit, Stopped, Task, cores
from dstrun.record.lock import BUSY_CODE
from dstrun.system.bounded import refuse_link
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, why
from dstrun.system.wording import counted

if TYPE_CHECKING:
    from dstrun.launcher.sweep import Ends, Plan

POLL_SECONDS = (1.0, 10.0)
"""Between two looks at files and queue: the first, growing to the last."""
SETTLE_SECONDS = 5.0
"""How long a job must have been over, or gone, before that is believed: files reach other machines late."""
RETURN_SECONDS = 60.0
"""The same for states after which SLURM may put the job back into the queue, and for jobs that are held."""
PATIENCE_SECONDS = 1800.0
"""How long SLURM may be silent."""
REQUEUE_PAUSES = (1, 2, 5, 10, 10, 10, 10)
"""Seconds between a warned job's attempts to be requeued; in all shorter than the default of ``signal_delay_s``."""

ASKED = (
    "partition", "qos", "account", "constraint", "exclude", "gres", "timeout_min", "nodes", "tasks_per_node",
    "cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task", "mem_gb", "mem_per_gpu", "mem_per_cpu",
)  # fmt: skip
"""Settings that SLURM can check before anything is submitted."""


class Submission:
    """One run as a job starts it; after a signal the same job starts it again, from its checkpoint."""

    def __call__(self, experiment: Experiment) -> None:
        """Train the run.

        Raises:
            SystemExit: it is not done, so that SLURM's accounts say so too.
        """
        from dstrun.launcher.work import work

        requeue_patiently()
        code = work(experiment, int(os.environ.get("SLURM_CPUS_PER_TASK", cores())))
        if code not in (0, BUSY_CODE):
            sys.exit(code)

    def checkpoint(self, experiment: Experiment) -> Any:
        """Return what submitit starts when the job is back: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, experiment)


def requeue_patiently() -> None:
    """Make submitit's handlers of warnings ask SLURM again where its controller is away just then."""

    def patient(handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        for pause in (*REQUEUE_PAUSES, 0):
            try:
                return handler(number, frame)
            except (subprocess.SubprocessError, OSError):
                time.sleep(pause)
        say("the run is saved, but SLURM does not requeue its job: the same command continues it")
        sys.exit(1)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if callable(handler := signal.getsignal(number)):
            signal.signal(number, partial(patient, handler))


class Slurm:
    """``hydra/launcher=slurm``.

    Args:
        settings: of the launcher ``submitit_slurm``, whose file ``conf/hydra/launcher/slurm.yaml`` says what is ours.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    outlives: ClassVar[bool] = True

    def check(self, tasks: Sequence[Task], plan: Plan) -> None:
        """Refuse what SLURM would refuse, or leave waiting for ever. Runs that jobs have already need no leave.

        Raises:
            ConfigError: said in one sentence.
        """
        minutes, lead = self.settings["timeout_min"], self.settings["signal_delay_s"]
        if queue.ask("sbatch", "--version") is None:
            raise ConfigError("hydra/launcher=slurm needs sbatch: run it where jobs are submitted")
        if lead >= 30 * minutes:
            raise ConfigError(f"hydra.launcher.signal_delay_s={lead} must be below half of timeout_min={minutes}")
        processes = self.settings["nodes"] * self.settings["tasks_per_node"]
        if processes > 1 and not all(task.experiment.config.get("distributed") for task in tasks):
            raise ConfigError(
                f"{processes} tasks per job make no sense without distributed=ddp: each would train the same run"
            )
        if len(taken(tasks, plan)) < len(tasks):
            queue.check_partition(self.settings["partition"], minutes)
            queue.check_job(self.flags())

    def flags(self) -> list[str]:
        """Return what a job asks for as sbatch has it."""
        asked = {key: self.settings[key] for key in ASKED} | dict(self.settings["additional_parameters"])
        names = {"timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks-per-node"}
        values = {key: f"{value}G" if key == "mem_gb" else value for key, value in asked.items() if value is not None}
        return [
            f"--{names.get(key, key.replace('_', '-'))}" + ("" if value is True else f"={value}")
            for key, value in values.items()
        ]

    def run(self, tasks: Sequence[Task], plan: Plan) -> Ends:
        """Submit tasks that no job has yet, follow all, and yield each as it ends; ``Stopped`` cancels those left.

        Raises:
            ConfigError: SLURM rejects the job, in its own words.
        """
        theirs = taken(tasks, plan)
        if theirs:
            say(f"already in the queue: {', '.join(sorted(theirs.values()))}")
        for task in tasks:
            task.begin()
        plan.jobs |= theirs
        own: dict[str, str] = {}
        refused = None
        try:
            self.submit([task for task in tasks if task.key not in theirs], own)
        except ConfigError as error:
            if not theirs and not own:
                raise
            refused = str(error)  # jobs that are there are followed all the same
            say(refused)
        plan.jobs |= own
        plan.write()
        jobs = {task: job for task in tasks if (job := plan.jobs[task.key])}
        plan.live.start(list(jobs), waiting=True)
        watch = Watch(jobs, Path(self.folder(tasks)), beat=plan.beat)
        ends = watch.ends()
        try:
            for pair in ends:
                try:
                    yield pair
                except Stopped:
                    if left := [job for job in watch.left.values() if job in own.values()]:
                        queue.ask("scancel", *left)
                    watch.drop([task for task, job in watch.left.items() if job not in own.values()])
            for task in (task for task in tasks if task not in jobs):
                yield task, Exit("not submitted", state="failed", message=refused or "not submitted")
        except KeyboardInterrupt:
            arrays = " ".join(sorted({job.split("_")[0] for job in watch.left.values()}))
            say(f"jobs in the queue go on, and the same command waits for them again; to stop them: scancel {arrays}")
            raise

    def folder(self, tasks: Sequence[Task]) -> str:
        """Return submitit's folder, ``%j`` for the job."""
        return str(tasks[0].folder.path.parent / ".submitit" / "%j")

    def submit(self, tasks: Sequence[Task], own: dict[str, str]) -> None:
        """Submit tasks as arrays.

        Args:
            tasks: to be submitted.
            own: gets the job of each by its key, those before an array that SLURM refuses, too.

        Raises:
            ConfigError: SLURM rejects the job, in its own words.
        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        if not tasks:
            return
        folder = Path(self.folder(tasks)).parent
        try:
            refuse_link(folder)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {why(error)}") from error
        ours = {"submitit_folder", "max_num_timeout"}
        common = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
                  "stderr_to_stdout"}  # fmt: skip
        executor = submitit.AutoExecutor(
            self.folder(tasks), cluster="slurm", slurm_max_num_timeout=self.settings["max_num_timeout"]
        )
        kept = {key: value for key, value in self.settings.items() if key not in ours and value is not None}
        executor.update_parameters(**{k if k in common else f"slurm_{k}": v for k, v in kept.items()})
        size = queue.largest_array() - 1
        for first in range(0, len(tasks), size):
            part = tasks[first : first + size]
            try:
                jobs = executor.map_array(Submission(), [task.experiment for task in part])
            except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
                raise queue.refusal("SLURM rejects the job", words(error)) from error
            own |= {task.key: job.job_id for task, job in zip(part, jobs, strict=True)}
            say(f"submitted {counted(len(part), 'job')}: {jobs[0].job_id.split('_')[0]}")


def taken(tasks: Sequence[Task], plan: Plan) -> dict[str, str]:
    """Return the jobs that tasks have already: those in the queue, or all, where SLURM does not say which are."""
    earlier = plan.earlier()
    mine = {task.key: earlier[task.key] for task in tasks if task.key in earlier}
    if not mine:
        return {}
    if (found := queue.jobs()) is None:
        return {task.key: mine[task.key] for task in tasks if task.key in mine and not task.ended}
    return {key: job for key, job in mine.items() if job in found and found[job].state not in queue.OVER}


def words(error: Exception) -> str:
    """Return what sbatch said."""
    return " ".join(line for line in str(error).splitlines() if "error:" in line) or str(error).strip()


class Watch:
    """Follows jobs until all are over.

    Args:
        jobs: of tasks.
        folder: submitit's, ``%j`` for the job.
        clock: seconds.
        sleep: for seconds.
        beat: called at every look.
    """

    def __init__(
        self,
        jobs: dict[Task, str],
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.left, self.folder, self.clock, self.sleep, self.beat = dict(jobs), folder, clock, sleep, beat
        self._since: dict[tuple[str, str], float] = {}
        self._waited: set[str] = set()
        self._answered = clock()
        self._silent = False

    def ends(self) -> Iterator[tuple[Task, Exit]]:
        """Yield each task as it ends."""
        pause, last = POLL_SECONDS
        while self.left:
            self.beat()
            for task in [task for task in self.left if task.done]:
                self.drop([task])
                yield task, Exit("")
            found = queue.jobs()
            if self._answers(found):
                for task, job in list(self.left.items()):
                    if task in self.left and (how := self._over(job, (found or {}).get(job))) is not None:
                        self.drop([task])
                        yield task, Exit(how, self._log(job))
            if self.left:
                self.sleep(pause)
                pause = min(1.2 * pause, last)

    def drop(self, tasks: Sequence[Task]) -> None:
        """Follow some no longer."""
        for task in tasks:
            self.left.pop(task, None)

    def _answers(self, found: dict[str, Job] | None) -> bool:
        """Return whether there is an answer, or has been none for so long that every job counts as gone."""
        if found is not None:
            self._answered, self._silent = self.clock(), False
            return True
        if not self._silent:
            say("SLURM does not answer; runs are followed by their files")
            self._silent = True
        return self.clock() - self._answered > PATIENCE_SECONDS

    def _over(self, name: str, job: Job | None) -> str | None:
        """Return how a job ended, or ``None`` as long as it may go on."""
        state = job.state if job else "GONE"
        if job is not None and state == "PENDING":
            self._waited.add(name)
        elif job is not None and state not in queue.OVER:
            self._waited.discard(name)
        stuck = job is not None and state == "PENDING" and queue.STUCK.search(job.reason)
        if not stuck and job is not None and state not in queue.OVER:
            self._since = {key: since for key, since in self._since.items() if key[0] != name}
            return None
        since = self._since.setdefault((name, state), self.clock())
        if self.clock() - since < (RETURN_SECONDS if stuck or state in queue.RETURNS else SETTLE_SECONDS):
            return None
        if job and stuck:
            return f"SLURM job {name} needs manual action ({job.reason}): scontrol release or scancel it"
        if job is None:
            job = queue.history([name]).get(name)
            if job is None and name in self._waited:  # a task of an array leaves no trace
                return f"SLURM job {name}: CANCELLED before it started"
            return f"SLURM job {name}: {job.state}" if job else f"SLURM job {name} disappeared from the queue"
        return BUSY if state == "COMPLETED" else f"SLURM job {name}: {state}"

    def _log(self, job: str) -> Path:
        """Return what SLURM kept of a job's output."""
        folder = Path(str(self.folder).replace("%j", job))
        folder = folder if folder.is_dir() else Path(str(self.folder).replace("%j", job.split("_")[0]))
        logs = sorted(folder.glob(f"{job}_*_log.out"))
        return logs[0] if logs else folder
