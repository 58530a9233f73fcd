"""What this processor can do with the tiles that the kernels use: read, copy, and multiply and add."""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
from numba import prange

from dstrun.backend.sparse.kernel.simd import add_product, add_scaled, fill, read, total, write, zero64, zero128
from dstrun.system.compiled import compiled


@compiled(parallel=True)
def reads(x, passes, threads, sums):
    """Sum up the numbers of x, each thread those of its own part, so many times.

    Args:
        x: flat float32, a multiple of 128 for each thread.
        passes: how often.
        threads: how many work.
        sums: (threads,) float32; overwritten.
    """
    own = x.shape[0] // threads
    for thread in prange(threads):
        tile = zero128()
        for _ in range(passes):
            for at in range(thread * own, (thread + 1) * own, 128):
                tile = add_scaled(tile, np.float32(1), read(x, at, 128, zero128()))
        sums[thread] = total(tile)


@compiled(parallel=True)
def copies(x, y, passes, threads):
    """Write multiples of x to y, each thread its own part, so many times; arguments as of ``reads``."""
    own = x.shape[0] // threads
    for thread in prange(threads):
        for number in range(passes):  # another multiple each time: a compiler may leave out what changes nothing
            for at in range(thread * own, (thread + 1) * own, 128):
                write(y, at, 128, add_scaled(zero128(), np.float32(number), read(x, at, 128, zero128())))


@compiled(parallel=True)
def multiply_adds(passes, threads, sums):
    """Multiply and add 192 numbers in registers, so many times on each thread; ``sums`` as of ``reads``."""
    for thread in prange(threads):
        one, half = fill(np.float32(thread), zero128()), fill(np.float32(thread), zero64())
        wide, narrow = one, half
        for _ in range(passes):
            wide, narrow = add_product(wide, wide, one), add_product(narrow, narrow, half)
        sums[thread] = total(wide) + total(narrow)
