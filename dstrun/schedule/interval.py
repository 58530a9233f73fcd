"""The interval of a recipe in a run shorter than the recipe's: shorter in proportion; a longer run keeps it."""

from __future__ import annotations

SHORTEST = 10
"""A shortened interval stays this many steps long, unless not even three would fit."""


def in_proportion(interval: int, recipe_steps: int, total: int) -> int:
    """Return a recipe's interval of a run of ``recipe_steps`` in one of ``total``; it may round to 0."""
    return round(interval * min(1.0, total / recipe_steps))


def shortened(interval: int, recipe_steps: int, total: int, room: int, least: int = 1) -> int:
    """Shorten a recipe's interval, but not below ``SHORTEST``.

    Args:
        interval: in steps, at the recipe's own length.
        recipe_steps: that length.
        total: steps of the run.
        room: steps in which there are updates.
        least: steps of an interval however little room there is.
    """
    return max(in_proportion(interval, recipe_steps, total), min(SHORTEST, interval, max(least, room // 3)))
