"""Keeps the memory that tensors free: given back to the system, it costs page faults in every step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

HUGE = 1 << 27
"""Blocks of so many bytes are better given back: small ones that take their places leave holes that none fits into."""


def largest_block(shapes: Sequence[tuple[int, ...]], batch: int) -> int:
    """Return the bytes of the largest activation of linear layers whose weights have these shapes."""
    return max((4 * batch * max(shape) for shape in shapes if len(shape) == 2), default=0)


def keep_freed() -> bool:
    """Make the C library reuse freed memory, also of tensors beyond 32 MB; return whether it could (glibc).

    glibc maps each block of more than 32 MB anew, and gives the top of the heap back when it is free: an activation of
    that size is then filled with zeros by the system, page by page, in every step. The process holds its peak in
    return, and up to twice what it uses where blocks are ``HUGE``.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
