"""Words that several sentences share."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[str], most: int = 4) -> str:
    """Join the first names with commas and count the rest: ``a, b and 3 more``.

    Args:
        names: in the order in which they are named.
        most: how many are named.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
