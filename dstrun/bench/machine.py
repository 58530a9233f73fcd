"""``dstrun bench machine``: how fast this machine's caches and memory are read and copied, and its multiply-adds.

These bound what any sparse product can reach: a product of activations that are read once takes at least the time of a
copy of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from dstrun.backend.sparse.kernel.call import array, threads
from dstrun.backend.sparse.kernel.roofline import copies, multiply_adds, reads
from dstrun.bench.arguments import Machine
from dstrun.bench.measure import interleaved, spread
from dstrun.bench.result import machine

MOVED = 1 << 30
"""So many bytes are moved in a round, at least."""
PASSES = 1 << 22
"""Multiply-adds of 192 numbers in a round."""


def measure(settings: Machine) -> Iterator[list[dict[str, Any]]]:
    """Time reads and copies of each size, and multiply-adds; yields the rows of each."""
    where = machine("cpu", settings.threads)
    count = threads()
    sums = array(torch.zeros(count))
    for kilobytes in settings.kilobytes:
        own = max(1, kilobytes * 1024 // 4 // 128) * 128
        x, y = (array(torch.ones(own * count)) for _ in range(2))
        size = 4 * own * count
        passes = max(1, MOVED // size)
        tasks: dict[str, tuple[Callable[[], object], int]] = {
            "read": (lambda x=x, passes=passes: reads(x, passes, count, sums), size * passes),
            "copy": (lambda x=x, y=y, passes=passes: copies(x, y, passes, count), 2 * size * passes),
        }
        yield [{"bench": "machine", "kilobytes": kilobytes, **row, **where} for row in _timed(tasks, settings.rounds)]
    done = {"multiply-add": (lambda: multiply_adds(PASSES, count, sums), 192 * PASSES * count)}
    yield [{"bench": "machine", "kilobytes": 0, **row, **where} for row in _timed(done, settings.rounds)]


def _timed(tasks: dict[str, tuple[Callable[[], object], int]], rounds: int) -> Iterator[dict[str, Any]]:
    """Time tasks in turns: a row each, with how many bytes (or multiply-adds) a round takes."""
    timed = interleaved({name: {name: run} for name, (run, _) in tasks.items()}, rounds, float("inf"))
    for name, (_, amount) in tasks.items():
        seconds = timed[name][name]
        yield {"implementation": name, "pass": name, "rounds": len(seconds), **spread(seconds), "bytes": amount}
