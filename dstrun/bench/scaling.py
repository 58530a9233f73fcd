"""``dstrun bench scaling``: time and memory of a training step as layers widen at a constant number of connections.

Each implementation has a process of its own (``point``), on a GPU too; they take steps in turns. What would not fit
into memory is not tried, and after an implementation has exceeded the limit of seconds at one width it is not tried at
wider ones.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from dstrun.bench.arguments import SCALED, Scaling
from dstrun.bench.measure import rows, turns
from dstrun.bench.point import LAYERS, predict
from dstrun.bench.result import machine
from dstrun.report.format import in_bytes
from dstrun.system.free import free_bytes
from dstrun.system.progress import say


class Failed(Exception):
    """A process ended or took too long; the message says which, ``implementation`` whose."""

    def __init__(self, implementation: str, message: str) -> None:
        super().__init__(f"stopped: {message}")
        self.implementation = implementation


class Point:
    """A process that trains one implementation at one width.

    Args:
        case: the arguments of ``point.Network``, and ``threads``.
        limit: seconds that setting up, or one step, may take.
    """

    def __init__(self, case: dict[str, Any], limit: float) -> None:
        self.limit = limit
        self.resident: int | None = None
        command = [sys.executable, "-m", "dstrun.bench.point"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.case = case

    def start(self) -> int:
        """Build the network and take its first steps; gives the bytes it holds."""
        return self._ask(json.dumps(self.case))["bytes"]

    def step(self) -> dict[str, float]:
        """Take a step; gives its seconds as a pass."""
        answer = self._ask("step")
        self.resident = answer["resident"]
        return {"step": answer["seconds"]}

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, line: str) -> dict[str, Any]:
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.case["implementation"], "the process ended, probably out of memory") from None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.limit):
                raise Failed(self.case["implementation"], f"took longer than {self.limit:g} s")
        if not (answer := process.stdout.readline()):
            raise Failed(self.case["implementation"], "the process ended, probably out of memory")
        return json.loads(answer)


def measure(settings: Scaling) -> Iterator[list[dict[str, Any]]]:
    """Time every width; yields its rows, with the reason where an implementation was not measured."""
    where = machine(settings.device, settings.threads)
    free = settings.memory * 1e9 if settings.memory is not None else 0.75 * free_bytes(settings.device)
    left = list(SCALED)
    for n in sorted(settings.sizes):
        if not left:
            return
        notes: dict[str, str] = {}
        room = free
        tried = []
        for name in sorted(left, key=lambda name: predict(name, n, settings.degree, settings.batch)):
            needed = predict(name, n, settings.degree, settings.batch)
            if needed > room:
                notes[name] = f"not run: would need about {in_bytes(needed)} of {in_bytes(max(room, 0))} left"
                continue
            tried.append(name)
            room -= needed
        case = {"bench": "scaling", "n": n, "degree": settings.degree, "batch": settings.batch}
        case["active"] = LAYERS * n * min(n, settings.degree)
        found = width(settings, n, [name for name in left if name in tried], notes)
        missing = [{"implementation": name, "pass": "step", "note": note} for name, note in notes.items()]
        yield [{"bytes": None, "resident_bytes": None, **case, **row, **where} for row in [*found, *missing]]
        left = [name for name in left if name not in notes]


def width(settings: Scaling, n: int, names: list[str], notes: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the named implementations at one width; why one has failed is added to the notes."""
    points: dict[str, Point] = {}
    held: dict[str, int] = {}
    try:
        for name in names:
            case = {"implementation": name, "n": n, "degree": settings.degree, "batch": settings.batch}
            case |= {"device": settings.device, "threads": settings.threads}
            points[name] = Point(case, settings.limit)
            try:
                held[name] = points[name].start()
                say(f"n={n}: {name} holds {in_bytes(held[name])}")
            except Failed as failed:
                notes[name] = str(failed)
                say(f"n={n}: {name} {notes[name]}")
                points.pop(name).end()
        timed = _timed(points, settings, notes)
        extra = {name: {"bytes": held[name], "resident_bytes": point.resident} for name, point in points.items()}
        return [{**row, **extra[row["implementation"]]} for row in rows(timed)]
    finally:
        for point in points.values():
            point.end()


def _timed(points: dict[str, Point], settings: Scaling, notes: dict[str, str]) -> dict[str, Any]:
    """Run steps in turns; one that fails is ended, and the others restart."""
    while points:
        try:
            return turns({name: point.step for name, point in points.items()}, settings.rounds, settings.limit)
        except Failed as failed:
            notes[failed.implementation] = str(failed)
            points.pop(failed.implementation).end()
    return {}
