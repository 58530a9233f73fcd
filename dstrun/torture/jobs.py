"""Faults on runs that train as jobs of a SLURM cluster, and on the clients that wait for them.

Everything is done with what any user of a cluster may do: signals to own jobs, requeueing and cancelling them, clients
that are killed, several at once, a SLURM that does not answer. Two sweeps of the same runs are trained on the cluster,
one undisturbed, and their results compared bit for bit.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from dstrun.launcher import queue
from dstrun.record import sealed
from dstrun.system.trouble import ConfigError
from dstrun.torture.certificate import Certificate
from dstrun.torture.compare import differences, left_by, left_over
from dstrun.torture.place import place, workshop
from dstrun.torture.trial import COMMON, CONFIGURATIONS, Verdict, drawn, last_words
from dstrun.torture.victim import BROKEN, IGNORED

EPOCHS = 40
"""Of a run: so many that faults meet it while it trains."""
CLIENTS = 12
"""How often a sweep may have to be started again besides the faults that end its client."""
PATIENCE_SECONDS = 1800.0
"""How long nothing may come to an end before the sweep counts as hanging."""
PAUSE_SECONDS = (0.3, 1.5)
"""Between two faults."""

JOB_KINDS = {
    "job-killed": "SIGKILL to every process of a job",
    "job-asked-to-stop": "SIGTERM to a job",
    "job-warned": "SIGUSR2 to a job, as before its time limit",
    "job-requeued": "SLURM puts a job back into the queue, as when it is preempted",
    "job-cancelled": "scancel",
    "job-held": "a waiting job is held, and released seconds later",
    "client-killed": "kill -9 of the client that waits; the same command is given again",
    "client-stopped": "Ctrl-C in the client that waits; the same command is given again",
    "clients-at-once": "the same command is given a second time while the first waits",
    "slurm-silent": "SLURM's commands fail for seconds",
}
"""Every kind by name, and the line that explains it."""

SHIM = """#!/bin/sh
if [ -e {flag} ]; then echo "{name}: error: Unable to contact slurm controller (connect failure)" >&2; exit 1; fi
exec {real} "$@"
"""
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct", "sinfo")


@dataclass
class Client:
    """``dstrun -m`` as a user starts it; what it says goes to a file."""

    process: subprocess.Popen[bytes]
    output_file: Path
    harmed: bool = False

    def output(self) -> str:
        """Return what it has said."""
        return self.output_file.read_text(errors="replace")


@dataclass
class Sweep:
    """The runs of a certificate as one sweep in a folder of its own.

    Args:
        folder: in which it runs; ``results`` is below.
        words: of the launcher.
        runs: how many runs.
    """

    folder: Path
    words: Sequence[str]
    runs: int
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "bin").mkdir()
        for name in COMMANDS:
            if real := shutil.which(name):
                shim = self.folder / "bin" / name
                shim.write_text(SHIM.format(flag=self.folder / "silent", name=name, real=real))
                shim.chmod(0o755)
        numbers = [range(len(range(first, self.runs, len(CONFIGURATIONS)))) for first in range(len(CONFIGURATIONS))]
        grids = [
            settings(words) | {"seed": ",".join(map(str, seeds))}
            for words, seeds in zip(CONFIGURATIONS.values(), numbers, strict=True)
            if seeds
        ]
        sweeper = {"params": settings(COMMON) | {"epochs": str(EPOCHS)}, "grids": grids}
        sweep = {"mode": "MULTIRUN", "sweeper": sweeper}
        sweep_config = {"defaults": ["config", "_self_"], "experiment": "torture", "hydra": sweep}
        (self.folder / "torture.yaml").write_text(yaml.safe_dump(sweep_config))

    @property
    def results(self) -> Path:
        """Return the folder with a folder for each run."""
        return self.folder / "results" / "torture"

    def start(self) -> Client:
        """Start a client."""
        output_file = self.folder / f"client-{len(self.clients)}.txt"
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        command = [sys.executable, "-m", "dstrun", "--config-dir", ".", "-cn", "torture", *self.words]
        with open(output_file, "wb") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self.clients.append(Client(process, output_file))
        return self.clients[-1]

    def done(self) -> set[str]:
        """Return the ids of runs that have a record."""
        return {file.parent.name for file in self.results.glob("*/record.json")}

    def jobs(self) -> dict[str, str]:
        """Return the last job of each run, by the run's id."""
        found: dict[str, str] = {}
        for file in sorted((self.results / ".sweeps").glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found |= {run["id"]: run["job"] for run in sealed.read(file)["runs"] if run["job"]}
        return found

    def silence(self, silent: bool) -> None:
        """Make SLURM's commands fail for clients and jobs, or answer again."""
        flag = self.folder / "silent"
        flag.touch() if silent else flag.unlink(missing_ok=True)

    def close(self) -> None:
        """End clients and jobs."""
        self.silence(False)
        for client in self.clients:
            client.process.kill()
            client.process.wait()
        if jobs := sorted(set(self.jobs().values())):
            queue.ask("scancel", *jobs)


def settings(words: Sequence[str]) -> dict[str, str]:
    """Return words as a sweep file has them."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


class Tormentor:
    """Injects faults into a sweep while it trains, and starts it again until it is done.

    Args:
        sweep: to suffer.
        faults: how many; they are spread over the time that the sweep takes.
        seed: draws them.
        tell: called with each fault as soon as it has been injected.
    """

    def __init__(self, sweep: Sweep, faults: int, seed: int, tell: Callable[[Verdict], None]) -> None:
        self.sweep, self.faults, self.tell = sweep, faults, tell
        self.seed, self.random = seed, Random(f"{seed} jobs")
        self.verdicts: list[Verdict] = []
        self.struck: dict[str, Verdict] = {}
        self._later: list[tuple[float, Callable[[], object]]] = []

    def run(self) -> None:
        """Inject all faults and wait until the sweep is done, or never will be."""
        client, started = self.sweep.start(), 1
        changed, before, due = time.monotonic(), -1, time.monotonic()
        while True:
            now, done = time.monotonic(), len(self.sweep.done())
            if done != before:
                changed, before = now, done
            if now - changed > PATIENCE_SECONDS:
                self.last().worsen("lost", f"nothing has finished for {now - changed:.0f} s", client.output())
                return
            for at, undo in [later for later in self._later if later[0] <= now]:
                undo()
                self._later.remove((at, undo))
            if client.process.poll() is not None:
                self._judge(client)
                if client.process.returncode == 0 and done == self.sweep.runs:
                    break
                started += not client.harmed
                if started > CLIENTS:
                    self.last().worsen("lost", f"never finishes: {last_words(client.output())}", client.output())
                    return
                client = self.sweep.start()
            if now >= due and self._behind(done):
                self._inject(client)
                due = now + self.random.uniform(*PAUSE_SECONDS)
            time.sleep(0.1)
        for other in self.sweep.clients:
            with suppress(subprocess.TimeoutExpired):
                other.process.wait(60)
            self._judge(other)

    def _behind(self, done: int) -> bool:
        """Return whether fewer faults have been injected than the progress of the sweep asks for."""
        begun = len(list(self.sweep.results.glob("*/status.json")))
        return done < self.sweep.runs and len(self.verdicts) < self.faults * max(begun, done + 1) / self.sweep.runs

    def _inject(self, client: Client) -> None:
        """Inject the next fault, where there is something for it to strike."""
        kind = drawn(self.seed, len(self.verdicts), list(JOB_KINDS))
        found, done = queue.jobs(), self.sweep.done()
        if found is None:
            return
        asked = "PENDING" if kind == "job-held" else "RUNNING"
        jobs = {
            name: job
            for name, job in self.sweep.jobs().items()
            if name not in done and job in found and found[job].state == asked
        }
        name, description = "", JOB_KINDS[kind]
        if kind.startswith("job-"):
            if kind == "job-held" and not jobs:
                kind, jobs = "job-cancelled", {n: j for n, j in self.sweep.jobs().items() if n not in done}
            if not jobs:
                return
            name = self.random.choice(sorted(jobs))
            description = f"{JOB_KINDS[kind]} ({jobs[name]})"
            self._strike_job(kind, jobs[name])
        else:
            self._strike_client(kind, client)
        self.struck[name] = self._note(Verdict(len(self.verdicts), kind, name or "the sweep", description))
        self.tell(self.last())

    def _strike_job(self, kind: str, job: str) -> None:
        words = {
            "job-killed": ("scancel", "--signal=KILL", "--full", job),
            "job-asked-to-stop": ("scancel", "--signal=TERM", job),
            "job-warned": ("scancel", "--signal=USR2", job),
            "job-requeued": ("scontrol", "requeue", job),
            "job-cancelled": ("scancel", job),
            "job-held": ("scontrol", "hold", job),
        }[kind]
        queue.ask(*words)
        if kind == "job-held":
            self._after(2, 8, lambda: queue.ask("scontrol", "release", job))

    def _strike_client(self, kind: str, client: Client) -> None:
        if kind == "clients-at-once":
            self.sweep.start()
        elif kind == "slurm-silent":
            self.sweep.silence(True)
            self._after(3, 12, lambda: self.sweep.silence(False))
        else:
            client.harmed = True
            with suppress(ProcessLookupError):
                os.killpg(client.process.pid, signal.SIGKILL if kind == "client-killed" else signal.SIGINT)
            client.process.wait(60)

    def _after(self, least: float, most: float, undo: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + self.random.uniform(least, most), undo))

    def last(self) -> Verdict:
        """Return the last fault; where there was none, a verdict that takes its place."""
        return self.verdicts[-1] if self.verdicts else self._note(Verdict(0, "none", "the sweep", "no fault yet"))

    def _note(self, verdict: Verdict) -> Verdict:
        self.verdicts.append(verdict)
        return verdict

    def _judge(self, client: Client) -> None:
        """Compare what a client has said, and its exit code, with what there is."""
        code, output = client.process.poll(), client.output()
        if code is None:
            return self.last().worsen("lost", "a client hangs", output)
        if BROKEN.search(IGNORED.sub("", output.replace("| Traceback", ""))):
            self.last().worsen("traceback", last_words(output), output)
        if code < 0 and client.harmed:
            return
        if code == 0 and len(self.sweep.done()) < self.sweep.runs:
            self.last().worsen("lost", "a client ends with exit code 0 for unfinished work", output)
        if code != 0 and not output.strip() and not client.harmed:
            self.last().worsen("lost", f"a client ends with code {code} without a message", output)
        for name, verdict in self.struck.items():
            if code != 0 and (line := next((li for li in output.splitlines() if f"{name}: " in li and name), "")):
                verdict.worsen("told", line.strip()[:200])


def certify(
    results: Path, runs: int, faults: int, seed: int, words: Sequence[str], tell: Callable[[Verdict], None]
) -> Certificate:
    """Train runs as jobs, undisturbed and disturbed, and say what became of them. Ctrl-C ends it early.

    Args:
        results: everything is written in a new folder below it, which the cluster's nodes must see; it is removed at
            the end.
        runs: how many runs.
        faults: how many faults.
        seed: that draws them.
        words: further words of the sweep, ``hydra.launcher.partition=gpu``.
        tell: called after each fault.

    Raises:
        ConfigError: the sweep does not even come out undisturbed.
    """
    version = (queue.ask("sbatch", "--version") or "SLURM").strip()
    made, started = Certificate(place(results), seed, faults, JOB_KINDS, repeatable=False), time.monotonic()
    words = ["hydra/launcher=slurm", *words]
    with suppress(KeyboardInterrupt), workshop(results) as folder, ExitStack() as stack:
        undisturbed = stack.enter_context(closing(Sweep(folder / "undisturbed", words, runs)))
        client = undisturbed.start()
        if client.process.wait():
            raise ConfigError(f"the sweep does not finish without faults: {last_words(client.output())}")
        disturbed = stack.enter_context(closing(Sweep(folder / "disturbed", words, runs)))
        tormentor = Tormentor(disturbed, faults, seed, tell)
        made.verdicts = tormentor.verdicts
        tormentor.run()
        equal = compare(undisturbed, disturbed, tormentor)
        made.place |= {"queue": version, "runs": f"{runs} as jobs, {equal} of them done and equal bit for bit"}
    made.seconds = time.monotonic() - started
    return made


def compare(undisturbed: Sweep, disturbed: Sweep, tormentor: Tormentor) -> int:
    """Compare every run with the same one undisturbed; what is wrong goes to the last fault that struck it.

    Returns:
        How many are done and equal.
    """
    equal = 0
    for name in sorted(undisturbed.done()):
        run, verdict = disturbed.results / name, tormentor.struck.get(name) or tormentor.last()
        log: Any = "\n".join(f.read_text(errors="replace") for f in (run / "log.txt", run / "error.txt") if f.exists())
        if name not in disturbed.done():
            verdict.worsen("lost", f"{name} is never done", log)
            continue
        if broken := BROKEN.search(IGNORED.sub("", log)):
            verdict.worsen("traceback", f"{name}: {last_words(log)}", broken.string[broken.start() :][:3000])
        if litter := left_over(run):
            verdict.worsen("litter", f"{name}: {', '.join(litter)}")
        if apart := list(differences(left_by(undisturbed.results / name), left_by(run))):
            verdict.worsen("wrong", f"{name} differs in {', '.join(apart[:3])}", log)
        equal += not apart
    return equal
