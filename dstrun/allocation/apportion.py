"""Share a budget of connections among layers exactly: neither rounding nor clipping loses a connection.

Everything is counted in integers and fractions, so that the same shapes give the same counts on every machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction

from dstrun.allocation.budget import budget
from dstrun.system.trouble import ConfigError

ON_TOP = ", but the first layer is dense, on top of the budget"
"""What a rule adds to its words where it sets the first layer apart."""


def behind_first(
    counts: Callable[[Sequence[tuple[int, ...]], float], list[int]], shapes: Sequence[tuple[int, ...]], sparsity: float
) -> list[int]:
    """Keep the first layer dense, on top of the budget of the others, which ``counts`` shares.

    The others together have sparsity s, so that the whole lies a little below: N_0 + round((1 - s) (N - N_0)).
    """
    return [math.prod(shape) for shape in shapes[:1]] + (counts(shapes[1:], sparsity) if shapes[1:] else [])


def apportion(weights: Sequence[int | Fraction], sizes: Sequence[int], sparsity: float) -> list[int]:
    """Share the budget in proportion to ``weights``, at least 1 and at most its size to each layer.

    A layer whose share exceeds its size is dense and the excess goes to the others in proportion (the iterative
    clipping of Evci et al. 2020); shares are then rounded by largest remainder, ties to the earlier layer.

    Args:
        weights: what a layer's count is proportional to, positive: raw density times size.
        sizes: connections of each layer when dense.
        sparsity: zeros / connections, in [0, 1).

    Returns:
        A count per layer; the sum is ``budget(sum(sizes), sparsity)``.

    Raises:
        ConfigError: the budget is smaller than the number of layers.
    """
    total = sum(sizes)
    active = budget(total, sparsity)
    if active < len(sizes):
        # Rounded down, so that the number can be typed as it stands.
        most = math.floor(1e4 * (1 - len(sizes) / total)) / 1e4
        raise ConfigError(
            f"sparsity={sparsity:g} leaves {active} of {total} connections to {len(sizes)} layers, and each "
            f"needs at least one: sparsity must be at most {most:g}"
        )
    # A share with a remainder is below its layer's size, so that rounding it up stays within.
    return largest_remainder(_shares(weights, sizes, active), active)


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Round shares whose sum is ``total`` to whole numbers: down, but up where most is left; ties to the earlier."""
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _shares(weights: Sequence[int | Fraction], sizes: Sequence[int], active: int) -> list[Fraction]:
    """Solve sum_l clamp(eps w_l, 1, N_l) = active for eps; return the clamped shares.

    The sum grows with eps, linearly between the points where a layer's share reaches 1 or its size: find the two
    around the budget, and interpolate.
    """

    def clamped(eps: Fraction) -> list[Fraction]:
        return [min(max(eps * w, Fraction(1)), Fraction(n)) for w, n in zip(weights, sizes, strict=True)]

    bends = sorted({Fraction(end) / w for w, n in zip(weights, sizes, strict=True) for end in (1, n)})
    at = bisect_left(bends, active, key=lambda eps: sum(clamped(eps)))
    above = clamped(bends[at])
    if sum(above) == active:
        return above
    low, high = sum(clamped(bends[at - 1])), sum(above)
    return clamped(bends[at - 1] + (bends[at] - bends[at - 1]) * Fraction(active - low) / (high - low))
