"""Work on long arrays, in parts that threads take in turn: compiled code runs without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

CHUNKS = 4
"""Parts for each thread, so that one that is held up does fewer."""

SMALL = 100_000
"""Entries below which starting threads costs more than they save."""


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Return where each of several parts of about the same length begins and ends."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds))


def in_parts(work: Callable[..., None], count: int, threads: int, *arguments: Any, chunks: int = CHUNKS) -> None:
    """Call ``work(begin, end, *arguments)`` for every part of ``count``; on one thread, for all of it at once."""
    if threads == 1:
        work(0, count, *arguments)
    else:
        each(work, [(*span, *arguments) for span in spans(count, min(count, chunks * threads) or 1)], threads)


def each(work: Callable[..., Any], calls: list[tuple[Any, ...]], threads: int) -> list[Any]:
    """Call a function with each of several sets of arguments, and return what it returns, in their order."""
    if threads == 1 or len(calls) < 2:
        return [work(*arguments) for arguments in calls]
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        return [done.result() for done in [pool.submit(work, *arguments) for arguments in calls]]
