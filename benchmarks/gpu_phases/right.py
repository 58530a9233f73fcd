"""Whether it is right: every check in one line, in processes side by side."""

from __future__ import annotations

from typing import Any

from dstrun.cli.help import options
from gpu_phases import jobs
from gpu_phases.scale import METHODS, TECHNIQUES, scale
from gpu_phases.slot import Slot

FIRST = ("set", "rigl", "gse", "dense", "gmp", "static")
"""Methods whose replayed steps are compared before those of others."""


def right(slot: Slot, deadline: float) -> None:
    """Make every check that no earlier slot has passed with this commit on such a card."""
    waiting = []
    for job in planned(slot):
        told = {name: slot.done_before(name) for name in job.checks}
        if job.checks and all(told.values()):
            for name, text in told.items():
                slot.check(name, "passed", f"{text} (in an earlier slot)")
        else:
            waiting.append(job)
    workers = scale(slot.device, "").workers
    if slot.device == "cpu":  # where to start a process takes longer than what it does
        waiting = [together(number, waiting[number::workers]) for number in range(workers) if waiting[number:]]
    jobs.run(slot, waiting, workers, deadline)


def together(number: int, parts: list[jobs.Job]) -> jobs.Job:
    """Return several jobs as one process."""
    arguments = {"parts": [(part.target.split(":")[1], part.arguments) for part in parts]}
    checks = [name for part in parts for name in part.checks]
    return jobs.Job(f"checks-{number}", "gpu_phases.checks:several", arguments, checks, timeout=600)


def planned(slot: Slot) -> list[jobs.Job]:
    """Return all checks, in order of value."""
    size, full = scale(slot.device, str(slot.root)), slot.device == "cuda"

    def job(name: str, function: str, checks: list[str], **arguments: Any) -> jobs.Job:
        common = {"device": slot.device, "root": str(slot.root)}
        return jobs.Job(name, f"gpu_phases.checks:{function}", common | arguments, checks, timeout=90)

    def compared(number: int, names: tuple[str, ...]) -> jobs.Job:
        return job(f"graph-{number}", "replayed", [f"graph: {name}" for name in names], names=names)

    def short(number: int, names: tuple[str, ...]) -> jobs.Job:
        return job(f"methods-{number}", "methods", [f"method: {name}" for name in names], names=names)

    every = tuple(options("method")) if full else ("gse", "snip", "sss")
    rest = tuple(name for name in every if name not in FIRST and name != "dst") if full else ("str",)
    names = ["static", *METHODS]
    precisions = size.precisions[:2]
    waiting = [f"no waiting: {network} {how}" for network in size.networks for how in ("replayed", "launched")]
    return [
        job("cpu", "against_cpu", [f"cpu: {name}" for name in names], names=names),
        *(
            job(f"twice-{network}", "twice", [f"twice: {network} {p}" for p in precisions], network=network)
            for network in size.networks
        ),
        compared(1, FIRST[:3]),
        compared(2, FIRST[3:]),
        job("resume", "resumed", ["resume: sgd", "resume: adamw"], optimizers=["sgd", "adamw"]),
        job("waiting", "quiet", waiting),
        job("turns", "in_turns", ["turns: three runs"]),
        job("memory", "memory", ["memory: step", "memory: update"]),
        *(
            job(f"techniques-{number}", "techniques", [f"memory: {name}" for name in names], names=names)
            for number, names in enumerate((TECHNIQUES[::2], TECHNIQUES[1::2]))
        ),
        job("tests", "marked", ["tests marked gpu"]),
        *(short(number, every[number::3]) for number in range(3)),
        *(compared(number + 3, rest[number::2]) for number in range(2) if rest[number::2]),
    ]
