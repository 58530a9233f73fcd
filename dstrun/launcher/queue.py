"""Queries of SLURM: the state of jobs, and what its partitions allow."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dstrun.config.option import nearest
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, why

OVER = {
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "PREEMPTED",
    "REVOKED",
}  # fmt: skip
RETURNS = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"}
"""States that a job shows for a moment before SLURM puts it back into the queue."""
STUCK = re.compile(r"held|Held|Partition(TimeLimit|NodeLimit|Config)|BadConstraints|NeverSatisfied|NotAllowed|Invalid")
"""Reasons to wait that only a person ends."""
AWAY = re.compile(
    r"Unable to contact|Unable to connect|[Cc]ommunication|[Cc]onnection (refused|reset|timed out)|Socket timed out"
)
"""Errors that are of no job: the controller does not answer."""
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job: its state in capitals, and why it waits."""

    state: str
    reason: str = ""


def ask(*command: str) -> str | None:
    """Return what a SLURM command prints, or ``None`` where it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def jobs() -> dict[str, Job] | None:
    """Return this user's jobs that SLURM remembers, by id (``12_0`` for a task of an array); ``None``: no answer."""
    answer = ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%F|%K|%T|%r")
    if answer is None:
        return None
    return read(answer)


def read(answer: str) -> dict[str, Job]:
    """Read lines of ``squeue --array --format=%F|%K|%T|%r``."""
    found = {}
    for line in answer.splitlines():
        array, task, state, reason = line.split("|", 3)
        found[array if task == "N/A" else f"{array}_{task}"] = Job(state, reason)
    return found


def coming(ids: Iterable[str]) -> set[str] | None:
    """Return those of anybody's jobs that run, return or wait, and not for a person; ``None``: no answer."""
    arrays = ",".join(sorted({name.split("_")[0] for name in ids}))
    words = ("squeue", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%r", f"--jobs={arrays}")
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    found = read(answer.stdout)
    return {
        name
        for name, job in found.items()
        if (job.state not in OVER or job.state in RETURNS) and not (job.state == "PENDING" and STUCK.search(job.reason))
    }


def history(ids: Iterable[str]) -> dict[str, Job]:
    """Return the state of jobs that have left the queue's memory, where the cluster keeps accounts."""
    answer = ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "--jobs", ",".join(ids))
    lines = [line.split("|") for line in (answer or "").splitlines()]
    return {words[0]: Job(words[1].split()[0]) for words in lines if len(words) == 2 and words[1]}


def fields(line: str) -> dict[str, str]:
    """Read a line of ``scontrol --oneliner``."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def check_partition(name: str | None, minutes: int) -> None:
    """Check a job's time limit against its partition's, beyond which it would wait for ever.

    Raises:
        ConfigError: there is no such partition, or it does not let jobs run that long.
    """
    answer = ask("scontrol", "show", "partition", "--oneliner") or ""
    partitions = {found["PartitionName"]: found for line in answer.splitlines() if (found := fields(line))}
    if not partitions:
        return  # sbatch will say what is wrong
    default = [key for key, found in partitions.items() if found.get("Default") == "YES"]
    chosen = name.split(",") if name else default
    for part in chosen:
        if part not in partitions:
            known = f"choose {', '.join(partitions)}{nearest(part, partitions)}"
            raise ConfigError(f"hydra.launcher.partition={part} is not known: {known}")
    limits = [limit for part in chosen if (limit := in_minutes(partitions[part].get("MaxTime", ""))) is not None]
    if limits and minutes > min(limits):
        raise ConfigError(
            f"hydra.launcher.timeout_min={minutes} exceeds the {min(limits)} minutes of partition {','.join(chosen)}; "
            "a run that needs longer continues after its limit"
        )


def check_job(flags: Sequence[str]) -> None:
    """Ask SLURM to check the resources of a job.

    Raises:
        ConfigError: in SLURM's words.
    """
    words = ("sbatch", "--test-only", *flags, "--wrap", "true")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"SLURM does not answer sbatch: {why(error)}") from error
    if done.returncode and "node configuration is not available" in done.stderr and some_away(flags):
        return say("nodes are down or drained: jobs that need them wait")
    if done.returncode:
        answer = "; ".join(line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines())
        raise refusal(f"SLURM rejects a job with {' '.join(flags)}", answer)


def refusal(what: str, answer: str) -> ConfigError:
    """Return why nothing was submitted: what SLURM says of a job, or that nobody has looked at it."""
    away = AWAY.search(answer)
    return ConfigError(f"SLURM cannot be reached, try again later: {answer}" if away else f"{what}: {answer}")


def some_away(flags: Sequence[str]) -> bool:
    """Return whether nodes are down or drained, so that SLURM cannot say what a job may get one day."""
    partition = [flag for flag in flags if flag.startswith("--partition=")]
    states = (ask("sinfo", "--noheader", "--Node", "--format=%T", *partition) or "").split()
    return any(state.startswith(("down", "drain", "fail", "maint", "reserved")) for state in states)


def in_minutes(limit: str) -> int | None:
    """Read SLURM's ``days-hours:minutes:seconds``; ``None`` for ``UNLIMITED``."""
    read = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if read is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in read.groups())
    return (24 * days + hours) * 60 + minutes


def largest_array() -> int:
    """Return how many tasks an array may have."""
    read = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "")
    return int(read[1]) if read else 1001
