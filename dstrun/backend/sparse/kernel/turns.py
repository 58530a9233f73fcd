"""Tasks shared out among threads: each has a run of neighbours of its own, and helps the others when it is done.

A thread that is held up, as by another program on its core, so does fewer.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dstrun.system.compiled import compiled

APART = 8
"""Counters lie so far apart: no two in one line of the cache."""


@compiled()
def begin(threads):
    """Return the counters of a loop, of the tasks taken from each thread's own."""
    return np.zeros(threads * APART, np.int64)


@compiled()
def next_task(taken, thread, tasks):
    """Return the number of a task that nobody has taken, or ``tasks`` if there is none.

    Args:
        taken: from ``begin``, shared by all threads.
        thread: which one asks.
        tasks: how many there are.
    """
    threads = taken.shape[0] // APART
    for turn in range(threads):
        owner = (thread + turn) % threads
        task = tasks * owner // threads + _count(taken, owner * APART)
        if task < tasks * (owner + 1) // threads:
            return task
    return tasks


@intrinsic
def _count(_typing: Any, counters: Any, at: Any) -> Any:
    """Add one to a counter, as no other thread does meanwhile, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counters, types.intp), generate
