"""How many connections a sparsity leaves, and whether a network has about as many. No torch."""

from __future__ import annotations

import math

TOLERANCE = 0.01
"""Of the connections asked for: so near, what comes in whole channels or has a small layer dense is as asked."""


def budget(total: int, sparsity: float) -> int:
    """Count the connections that ``sparsity`` leaves of ``total``: round((1 - s) N)."""
    return round((1 - sparsity) * total)


def met(active: float, total: int, sparsity: float) -> bool:
    """Return whether so many active connections of ``total`` are those asked for: to 1 % of them, or to one."""
    asked = budget(total, sparsity)
    return abs(active - asked) <= max(1, TOLERANCE * asked)


def percent(sparsity: float) -> str:
    """Format a sparsity with three digits of the density: ``61.2``, ``97.43``, ``99.9540``."""
    density = 100 * (1 - sparsity)
    digits = min(6, max(1, 2 - math.floor(math.log10(density)))) if density > 0 else 1
    return f"{100 * sparsity:.{digits}f}"
