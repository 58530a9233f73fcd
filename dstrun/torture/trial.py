"""Faults on runs, one after another; each run is then left alone until it is done, and compared."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from dstrun.torture.compare import differences, left_by, left_over, run_folder
from dstrun.torture.fault import KINDS, Fault, Reference
from dstrun.torture.points import Strike
from dstrun.torture.victim import Attempt, Injury, attempt, ready

COMMON = ("dataset=digits", "threads=1", "wandb=disabled", "epochs=2")
EVERY_STEP = "checkpoint.every_minutes=0.000000001"
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "gse": ("model=mlp", "method=gse", EVERY_STEP),
    "rigl": ("model=mlp", "method=rigl", "optimizer=adam", EVERY_STEP),
    "set": ("model=mlp", "method=set", "backend=sparse", EVERY_STEP),
    "seldom saved": ("model=mlp", "method=rigl", "scope=global"),
}
"""Small runs with much to lose: momentum, ages of connections, both backends; one saves at its end only."""

TOGETHER = 3
"""Faults of a case, which hit one run one after another as long as it is not done."""
RESTARTS = 5
PATIENCE_SECONDS = 15.0
"""How long a run may be said to be in others' hands when it is in nobody's."""
BAD = ("litter", "lost", "wrong", "traceback")
VERDICTS = ("right", "told", *BAD)
"""Done and equal; not done and said so; files left behind; never done; other results without a word; a traceback."""


@dataclass
class Verdict:
    """What became of a fault: one of ``VERDICTS``, and why; ``struck`` is False where its moment never came."""

    number: int
    kind: str
    configuration: str
    said: str
    verdict: str = "right"
    why: str = ""
    struck: bool = True
    seconds: float = 0.0
    output: str = field(default="", repr=False)

    def worsen(self, verdict: str, why: str, output: str = "") -> None:
        """Set a verdict, unless a worse one is there."""
        if VERDICTS.index(verdict) > VERDICTS.index(self.verdict):
            self.verdict, self.why, self.output = verdict, why, output[-3000:]


def drawn(seed: int, number: int, kinds: Sequence[str]) -> str:
    """Draw the kind of a fault: every kind once before one comes again."""
    order = list(kinds)
    Random(f"{seed} kinds {number // len(order)}").shuffle(order)
    return order[number % len(order)]


def configuration(seed: int, numbers: Sequence[int], names: Sequence[str]) -> str:
    """Draw which run suffers the faults of a case."""
    return Random(f"{seed} configuration {numbers[0] // TOGETHER}").choice(names)


def refer(folder: Path, words: Sequence[str]) -> Reference:
    """Make the undisturbed run.

    Raises:
        RuntimeError: it does not even end undisturbed.
    """
    words = (*COMMON, *words)
    ready(words)
    folder.mkdir(parents=True)
    for _ in range(2):  # the first one fills caches and imports, and its time is no measure
        shutil.rmtree(folder / "results", ignore_errors=True)
        (done,) = attempt(words, folder, Injury())
        for name in done.modules:  # so that every attempt has them from its start
            with suppress(Exception):
                import_module(name)
    run = run_folder(folder)
    if done.code != 0 or run is None:
        raise RuntimeError(f"the undisturbed run {' '.join(words)} ended with code {done.code}:\n{done.output}")
    left = left_by(run)
    size = (run / "checkpoint.pt").stat().st_size
    return Reference(words, left, done.trace, done.seconds, left["checkpoint.pt"]["step"], size)


class Trial:
    """The faults of one case, in a folder of its own.

    Args:
        folder: to work in; it is removed by ``close``.
        reference: the undisturbed run of the configuration.
    """

    def __init__(self, folder: Path, reference: Reference) -> None:
        self.folder, self.reference = folder, reference
        self.together: list[Verdict] = []
        self.harmed = False
        self._mounted = False

    def suffer(self, fault: Fault, verdict: Verdict, random: Random) -> None:
        """Inject a fault; what comes of it goes into the verdict, now or in ``settle``."""
        self._stage(fault.stage, random)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.together.append(verdict)
        started = time.monotonic()
        if fault.mount:
            (self.folder / "results").mkdir(exist_ok=True)
            self._mount(fault.mount)
        if fault.harm and (run := run_folder(self.folder)):
            harm = fault.harm(run)
            self.harmed = True
            verdict.said, verdict.struck = harm or verdict.said, harm is not None
        if fault.injuries:
            ended = attempt(self.reference.words, self.folder, *fault.injuries, apart=fault.apart)
            verdict.struck = any(one.struck for one in ended) or bool(fault.mount)
            for one, injury in zip(ended, fault.injuries, strict=True):
                self._judge(one, injury, fault, verdict)
        if fault.mount:
            self._mount("remount,size=64m,nr_inodes=1000")
        verdict.seconds += time.monotonic() - started
        if self._done():
            self.settle()

    def settle(self) -> None:
        """Finish the run undisturbed, and compare."""
        if not self.together:
            return
        verdict, started = self.together[-1], time.monotonic()
        output = self._restart(verdict)
        run = run_folder(self.folder)
        if verdict.verdict not in BAD and run is not None:
            found = list(differences(self.reference.left, left_by(run)))
            parts = sorted({part for part in self.reference.left for place in found if place.startswith(part)})
            if found and not all(part in output for part in parts):
                verdict.worsen("wrong", f"differs in {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}", output)
            elif over := left_over(run):
                verdict.worsen("litter", f"leaves {', '.join(over)} behind", output)
        verdict.seconds += time.monotonic() - started
        self.close()

    def close(self) -> None:
        """Remove everything."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", self.folder / "results"], capture_output=True)
            self._mounted = False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.together, self.harmed = [], False

    def _stage(self, stage: str, random: Random) -> None:
        """Bring the run to where a fault wants it."""
        if stage in ("new", "done"):
            self.settle()
            self.close()
        if stage == "any" or stage == "new":
            return
        run = run_folder(self.folder) if self.folder.exists() else None
        if stage == "part" and run is not None and (run / "status.json").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        at = random.randint(len(self.reference.trace) // 4, len(self.reference.trace) * 9 // 10)
        kill = Strike(at, lambda operation, path: signal.raise_signal(signal.SIGKILL))
        attempt(self.reference.words, self.folder, Injury([kill] if stage == "part" else ()))

    def _judge(self, one: Attempt, injury: Injury, fault: Fault, verdict: Verdict) -> None:
        """Return what is wrong with the end of an attempt to which something has happened."""
        if one.hung:
            verdict.worsen("lost", f"hangs for {one.seconds:.0f} s", one.output)
        if one.broken:
            verdict.worsen("traceback", last_words(one.output), one.output)
        if one.code < 0:
            return  # killed, and so it could not say anything
        if one.code == 0 and not one.done:
            verdict.worsen("lost", "exit code 0 for unfinished work", one.output)
        if one.code != 0:
            verdict.worsen("told", last_words(one.output), one.output)
            if injury.streams == "kept" and not one.ends_in_a_sentence:
                verdict.worsen("lost", f"ends with code {one.code} without a message", one.output)
            if len(fault.injuries) == 1 and not self._done() and (state := self._state()) == "running":
                verdict.worsen("lost", f"ends with code {one.code}, and its state is {state}", one.output)

    def _restart(self, verdict: Verdict) -> str:
        """Start the run until it is done, doing what it asks for; returns all it said."""
        output, restarts, deadline = "", 0, time.monotonic() + PATIENCE_SECONDS
        while restarts < RESTARTS:
            (one,) = attempt(self.reference.words, self.folder, Injury())
            output += one.output
            if one.hung:
                verdict.worsen("lost", f"started again, it hangs for {one.seconds:.0f} s", one.output)
            if one.broken:
                verdict.worsen("traceback", f"started again: {last_words(one.output)}", one.output)
            if one.code == 0 and one.done:
                return output
            if "is being run by" in one.output and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            restarts += 1
            advised = [path for path in advice(one.output, self.folder) if path.exists()]
            if advised:  # no fault but damage to files may need a hand
                verdict.worsen(
                    "told" if self.harmed else "lost", f"needs manual repair: {last_words(one.output)}", one.output
                )
            for path in advised:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        verdict.worsen("lost", f"never finishes: {last_words(output)}", output)
        return output

    def _done(self) -> bool:
        return any(self.folder.glob("results/*/*/record.json"))

    def _state(self) -> str | None:
        """Return the state that ``status.json`` tells; no fault of this kind is left where it could not be written."""
        run = run_folder(self.folder)
        if run is None or self._unwritable:
            return None
        with suppress(OSError, ValueError, AttributeError):
            return json.loads((run / "status.json").read_text()).get("state")
        return None

    @property
    def _unwritable(self) -> bool:
        kinds = ("disk-full", "disk-error", "read-only", "file-size", "open-files", "small-disk")
        return bool(self.together) and self.together[-1].kind in kinds

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder / "results"]
        subprocess.run(command, check=True, capture_output=True)
        self._mounted = True


def advice(output: str, folder: Path) -> list[Path]:
    """Find the files that a refusal asks the user to remove, below a folder."""
    lines = [line for line in output.splitlines() if re.search(r"\bremove\b", line)]
    words = [word.strip("'\",:;()") for line in lines for word in line.split() if "results/" in word]
    return [path for word in words if (path := (folder / word).resolve()).is_relative_to(folder.resolve())]


def case(
    seed: int,
    numbers: Sequence[int],
    folder: Path,
    name: str,
    reference: Reference,
    kinds: Sequence[str],
    skipped: Collection[str] = (),
) -> Iterator[Verdict]:
    """Do the faults of one case, and give their verdicts; kinds that cannot be had here strike nothing."""
    trial, verdicts = Trial(folder, reference), []
    try:
        for number in numbers:
            kind = drawn(seed, number, kinds)
            random = Random(f"{seed} fault {number}")
            fault = KINDS[kind](random, reference)
            verdicts.append(Verdict(number, kind, name, fault.said))
            if kind in skipped:
                verdicts[-1].struck = False
            else:
                trial.suffer(fault, verdicts[-1], random)
        trial.settle()
    finally:
        trial.close()
    yield from verdicts


def last_words(output: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("see ", "next: "))]
    return lines[-1][:200] if lines else "no output"
