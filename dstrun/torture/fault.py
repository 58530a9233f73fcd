"""Kinds of faults: a name, a line of explanation, and how one of the kind is drawn."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from dstrun.torture.points import CREATES, Strike
from dstrun.torture.victim import Injury


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: the words, what it left, its points, how long it took, the size of its checkpoint."""

    words: tuple[str, ...]
    left: dict[str, Any]
    trace: Sequence[str]
    seconds: float
    steps: int
    bytes: int


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        said: what happens, for readers.
        injuries: of each process that is started; none where only files are damaged.
        apart: seconds between the starts.
        harm: what is done to the run's folder before; says what it did, or ``None`` where there was nothing to harm.
        stage: what must be there before: ``any``, a ``new`` run, a ``part`` of one, or a run that is ``done``.
        mount: options of a small file system to be mounted for it.
    """

    said: str
    injuries: Sequence[Injury] = ()
    apart: Sequence[float] = ()
    harm: Callable[[Path], str | None] | None = None
    stage: str = "any"
    mount: str | None = None


Draw = Callable[[Random, Reference], Fault]
KINDS: dict[str, Draw] = {}
"""Every kind by name; what a kind does stands in its docstring."""


def kind(draw: Draw) -> Draw:
    """Register a kind under the name of its function."""
    KINDS[draw.__name__.replace("_", "-")] = draw
    return draw


def explained(name: str) -> str:
    """Return the line that explains a kind."""
    return (KINDS[name].__doc__ or "").splitlines()[0]


def _point(random: Random, reference: Reference, operations: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Draw a point of one of these operations, early ones oftener, as a continued run has fewer; and say which."""
    found = [n for n, entry in enumerate(reference.trace, 1) if not operations or entry.split()[0] in operations]
    number = found[int(len(found) * random.random() ** 1.5)]
    return number, f"point {number} ({reference.trace[number - 1]})"


def _fail(code: int, operation: str, path: str) -> None:
    raise OSError(code, os.strerror(code), path)


def _send(number: int, operation: str, path: str) -> None:
    os.kill(os.getpid(), number)


@kind
def kill_at_a_write(random: Random, reference: Reference) -> Fault:
    """Kill -9 before, in the middle of or after an operation on the run's files."""
    number, at = _point(random, reference)
    when = random.choice(("before", "middle", "after"))
    strike = Strike(number, partial(_send, signal.SIGKILL), when)
    return Fault(f"kill -9 {when} {at}".replace("middle", "in the middle of"), [Injury([strike])])


@kind
def kill_at_random(random: Random, reference: Reference) -> Fault:
    """Kill -9 at a random moment."""
    seconds = random.uniform(0, reference.seconds)
    return Fault(f"kill -9 after {seconds:.3f} s", [Injury(signal=signal.SIGKILL, seconds=seconds)])


@kind
def asked_to_stop(random: Random, reference: Reference) -> Fault:
    """SIGTERM, SIGINT or SIGHUP, at an operation or at a random moment."""
    asked = random.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    if random.random() < 0.5:
        number, at = _point(random, reference)
        return Fault(f"{asked.name} at {at}", [Injury([Strike(number, partial(_send, asked))])])
    seconds = random.uniform(0.05, reference.seconds)
    return Fault(f"{asked.name} after {seconds:.3f} s", [Injury(signal=asked, seconds=seconds)])


@kind
def disk_full(random: Random, reference: Reference) -> Fault:
    """No space or no quota, once or from then on; half of what is written may have been taken."""
    code = random.choice((errno.ENOSPC, errno.EDQUOT))
    return _failing(random, reference, code, CREATES, random.random() < 0.6)


@kind
def disk_error(random: Random, reference: Reference) -> Fault:
    """An input/output error at one operation."""
    return _failing(random, reference, errno.EIO, frozenset(), False)


@kind
def read_only(random: Random, reference: Reference) -> Fault:
    """The file system turns read-only under the run."""
    return _failing(random, reference, errno.EROFS, frozenset(), True)


def _failing(random: Random, reference: Reference, code: int, operations: frozenset[str], lasting: bool) -> Fault:
    number, at = _point(random, reference, operations)
    when = random.choice(("before", "middle"))
    strike = Strike(number, partial(_fail, code), when, lasting, operations)
    return Fault(f"{errno.errorcode[code]} {'from' if lasting else 'once at'} {at}", [Injury([strike])])


@kind
def file_size(random: Random, reference: Reference) -> Fault:
    """A real limit of file sizes (ulimit -f), as of a quota."""
    size = int(64 * (1.3 * reference.bytes / 64) ** random.random())

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as in every Python
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return Fault(f"no file may be larger than {size} bytes", [Injury(prepare=limit)])


@kind
def open_files(random: Random, reference: Reference) -> Fault:
    """A real limit of open files (ulimit -n), reached at an operation."""
    number, at = _point(random, reference)

    def limit(operation: str, path: str) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    return Fault(f"no file can be opened from {at}", [Injury([Strike(number, limit)])])


@kind
def small_disk(random: Random, reference: Reference) -> Fault:
    """A real file system that is too small in bytes or in files, and grows later (tmpfs; needs root)."""
    room = int(16384 * (3 * reference.bytes / 16384) ** random.random()) if reference.bytes > 6000 else 16384
    inodes = random.choice((0, 0, random.randint(4, 14)))
    mount = f"nr_inodes={inodes},size=64m" if inodes else f"size={room}"
    return Fault(f"results on a tmpfs of {mount}", [Injury(streams="kept")], stage="new", mount=mount)


def can_mount(folder: Path) -> bool:
    """Return whether small file systems can be had here."""
    if os.geteuid() != 0:
        return False
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        return mounted.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0
    except OSError:
        return False


@kind
def reader_gone(random: Random, reference: Reference) -> Fault:
    """Whoever reads the output has gone, goes, or never was; or the log's disk is full."""
    streams = random.choice(("pipe", "leaves", "closed", "full"))
    number, at = _point(random, reference)
    strikes = [Strike(number, lambda operation, path: None)] if streams == "leaves" else []
    words = {"pipe": "the output is a pipe that nobody reads", "closed": "stdout and stderr are closed",
            "full": "the output goes to a full disk", "leaves": f"the reader of the output leaves at {at}"}  # fmt: skip
    return Fault(words[streams], [Injury(strikes, streams=streams)])


@kind
def several_writers(random: Random, reference: Reference) -> Fault:
    """Two or three processes start the same run at about the same time; one may be killed."""
    count, killed = random.choice((2, 2, 3)), random.random() < 0.5
    number, at = _point(random, reference)
    strike = [Strike(number, partial(_send, signal.SIGKILL))] if killed else []
    apart = [0.0, *(random.choice((0.0, random.uniform(0, reference.seconds))) for _ in range(count - 1))]
    description = f"{count} processes at once" + (f", the first killed at {at}" if killed else "")
    return Fault(description, [Injury(strike), *[Injury()] * (count - 1)], apart)


FILES = ("metrics.csv", "topology.csv", "checkpoint.pt", "checkpoint.previous.pt", "status.json", ".owner",
         "config.yaml")  # fmt: skip


def _damage(random: Random, name: str, files: Sequence[str], stage: str) -> Fault:
    drawn, place, bit = random.sample(files, len(files)), random.random(), random.randrange(8)
    count = 2 if random.random() < 0.15 and len(files) > 1 else 1

    def harm(run: Path) -> str | None:
        harmed = [one for one in drawn if (run / one).exists() and (name != "flip" or (run / one).stat().st_size)]
        for one in harmed[:count]:
            path = run / one
            content = path.read_bytes()
            at = int(place * len(content))
            if name == "delete":
                path.unlink()
            elif name == "flip":
                path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
            else:
                path.write_bytes(content[:at] if name == "truncate" else b"")
        done = {"flip": "a bit is flipped in", "truncate": "cut short:", "empty": "emptied:", "delete": "deleted:"}
        return f"{done[name]} {' and '.join(harmed[:count])}" if harmed else None

    return Fault(f"{name} a file", harm=harm, stage=stage)


@kind
def truncated(random: Random, reference: Reference) -> Fault:
    """A file of a run that was killed is cut short or emptied."""
    return _damage(random, random.choice(("truncate", "truncate", "empty")), FILES, "part")


@kind
def deleted(random: Random, reference: Reference) -> Fault:
    """A file of a run that was killed is gone."""
    return _damage(random, "delete", FILES, "part")


@kind
def changed(random: Random, reference: Reference) -> Fault:
    """A bit is flipped in a file of a run that was killed."""
    return _damage(random, "flip", FILES, "part")


@kind
def record_damaged(random: Random, reference: Reference) -> Fault:
    """The record of a finished run is cut, emptied or has a bit flipped."""
    return _damage(random, random.choice(("truncate", "empty", "flip", "flip")), ("record.json",), "done")


@kind
def clock_jumps(random: Random, reference: Reference) -> Fault:
    """The clock jumps by an hour or a day, forth or back, while the run trains."""
    jump = random.choice((-86400, -3600, 3600, 86400))
    number, at = _point(random, reference)
    kills = random.random() < 0.5

    def do(operation: str, path: str) -> None:
        real = time.time
        time.time = lambda: real() + jump

    strikes = [Strike(number, do)]
    strikes += [Strike(number + random.randint(1, 40), partial(_send, signal.SIGKILL))] if kills else []
    return Fault(f"the clock jumps by {jump} s at {at}{', later kill -9' if kills else ''}", [Injury(strikes)])


@kind
def dates_jump(random: Random, reference: Reference) -> Fault:
    """Files of a run that was killed are dated a day into the future or the past."""
    jump = random.choice((-86400, 86400))

    def harm(run: Path) -> str:
        for path in run.iterdir():
            os.utime(path, (time.time() + jump, time.time() + jump))
        return f"dates of all files are shifted by {jump} s"

    return Fault(f"dates of files jump by {jump} s", harm=harm, stage="part")


@kind
def memory_of_a_step(random: Random, reference: Reference) -> Fault:
    """PyTorch finds no memory in a step."""
    step = random.randint(1, reference.steps)

    def prepare() -> None:
        from dstrun.train.training import Training

        real = Training.take_step

        def take_step(self: Training) -> Any:
            if self.step + 1 == step:
                size = "you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
                raise RuntimeError(f"[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate: {size}")
            return real(self)

        Training.take_step = take_step

    return Fault(f"no memory in step {step}", [Injury(prepare=prepare)])


@kind
def memory_at_random(random: Random, reference: Reference) -> Fault:
    """Python raises MemoryError at a random moment."""
    seconds = random.uniform(0.02, reference.seconds)

    def prepare() -> None:
        def raise_it(*_: Any) -> None:
            raise MemoryError

        signal.signal(signal.SIGALRM, raise_it)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return Fault(f"MemoryError after {seconds:.3f} s", [Injury(prepare=prepare)])


@kind
def memory_limit(random: Random, reference: Reference) -> Fault:
    """A real limit of memory (ulimit -v) that is soon reached."""
    more = random.randint(0, 48) << 20

    def prepare() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))

    return Fault(f"{more >> 20} MiB more memory than at the start", [Injury(prepare=prepare)])
