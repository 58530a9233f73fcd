"""How many connections each layer grows when they move between layers: a fixed total, by need, up to a cap.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FULL = 0.99
"""A layer is filled up to this share of what is free in it (Dettmers and Zettlemoyer 2019)."""


def regrowth(need: Sequence[float], total: int, free: Sequence[int]) -> list[int]:
    """Share a total in proportion to need; what exceeds a layer's cap goes to the others in equal parts.

    A cap is ``FULL`` of what is free, or all of it where the caps together would not hold the total. Shares are rounded
    by largest remainder, ties to the earlier layer.

    Args:
        need: of each layer, at least 0; equal where all are 0.
        total: connections to grow, at most the sum of ``free``.
        free: inactive connections of each layer.

    Returns:
        A count per layer, at most what is free in it; the sum is ``total``.
    """
    caps = [math.floor(FULL * count) for count in free]
    if sum(caps) < total:
        caps = list(free)
    whole = sum(need)
    shares = [total * part / whole if whole else total / len(need) for part in need]
    excess = 1.0
    while excess > 1e-6:
        excess = sum(max(0.0, share - cap) for share, cap in zip(shares, caps, strict=True))
        shares = [min(share, float(cap)) for share, cap in zip(shares, caps, strict=True)]
        room = [share < cap for share, cap in zip(shares, caps, strict=True)]
        if not any(room):
            break
        shares = [share + excess / sum(room) if open_ else share for share, open_ in zip(shares, room, strict=True)]
    counts = [min(math.floor(share), cap) for share, cap in zip(shares, caps, strict=True)]
    while (missing := total - sum(counts)) > 0:
        open_layers = [i for i, cap in enumerate(caps) if counts[i] < cap]
        for i in sorted(open_layers, key=lambda i: counts[i] - shares[i])[:missing]:
            counts[i] += 1
    return counts
