"""Paired timing: implementations take turns in every round, so that what disturbs the machine disturbs them alike.

A ratio is taken round by round, and its median and quartiles are told: one of the two medians alone would compare
different moments. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

REFERENCE = "sparse"
"""What every other implementation is compared with."""

Passes = Mapping[str, Callable[[], object]]
Times = dict[str, list[float]]


def interleaved(
    tasks: Mapping[str, Passes], rounds: int, limit: float, synchronize: Callable[[], object] = lambda: None
) -> dict[str, Times]:
    """Time implementations in turns: a round runs the passes of each, beginning with another one every time.

    A first round is not counted: code is compiled and memory claimed in it. An implementation that has taken longer
    than ``limit`` has no further turn; its rounds are then fewer, and the r-th is still the r-th of all others.

    Args:
        tasks: the passes of each implementation, by name, in the order they are run.
        rounds: counted ones.
        limit: seconds for each implementation, the first round not included.
        synchronize: waits until the device is done.

    Returns:
        Seconds by implementation and pass, one a round.
    """
    return turns(
        {name: lambda passes=passes: _once(passes, synchronize) for name, passes in tasks.items()}, rounds, limit
    )


def turns(tasks: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int, limit: float) -> dict[str, Times]:
    """Do so with tasks that time their passes themselves."""
    spent = dict.fromkeys(tasks, 0.0)
    timed: dict[str, Times] = {name: {} for name in tasks}
    for number in range(rounds + 1):
        names = list(tasks)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if spent[name] > limit:
                continue
            seconds = tasks[name]()
            if number == 0:
                continue
            spent[name] += sum(seconds.values())
            for key, value in seconds.items():
                timed[name].setdefault(key, []).append(value)
    return timed


def _once(passes: Passes, synchronize: Callable[[], object]) -> dict[str, float]:
    """Run each pass once; what it returns is freed after the clock has stopped."""
    seconds = {}
    for key, run in passes.items():
        synchronize()
        start = time.perf_counter()
        result = run()
        synchronize()
        seconds[key] = time.perf_counter() - start
        del result
    return seconds


def spread(values: Sequence[float], prefix: str = "") -> dict[str, float]:
    """Return ``median``, ``q1`` and ``q3``, each key with the prefix; quartiles interpolate between the values."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {f"{prefix}median": median(values), f"{prefix}q1": low, f"{prefix}q3": high}


def rows(timed: Mapping[str, Times], reference: str = REFERENCE) -> list[dict[str, Any]]:
    """Make one row a pass and implementation, and one of the passes' sum where there are several.

    ``x_median`` is the median over rounds of its time over the reference's, ``x_q1`` and ``x_q3`` the quartiles; none
    where the reference has no such pass.
    """
    whole = {name: with_sum(times) for name, times in timed.items()}
    made = []
    for name, times in whole.items():
        for key, seconds in times.items():
            base = whole.get(reference, {}).get(key)
            ratios = spread([a / b for a, b in zip(seconds, base, strict=False)], "x_") if base else {}
            made.append({"implementation": name, "pass": key, "rounds": len(seconds), **spread(seconds), **ratios})
    return made


def with_sum(times: Times) -> Times:
    """Add the sum of each round over the passes, where there are several."""
    return times if len(times) < 2 else {**times, "sum": [sum(each) for each in zip(*times.values(), strict=True)]}
