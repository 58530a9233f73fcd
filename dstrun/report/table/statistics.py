"""Statistics of few seeds: spread, an interval, and tests paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

LEVEL = 0.95


def half_width(deviation: float, n: int) -> float:
    """Return half the width of the 95 % confidence interval of a mean (Student's t).

    Args:
        deviation: sample standard deviation.
        n: at least 2.
    """
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / n**0.5


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Return the two-sided p-value of a paired t-test over the seeds that both have; None for fewer than two."""
    differences = [one[seed] - other[seed] for seed in one.keys() & other.keys()]
    if len(differences) < 2:
        return None
    spread = stdev(differences)
    if spread == 0:
        return float(fmean(differences) == 0)
    from scipy.stats import t

    return 2 * float(t.sf(abs(fmean(differences)) / (spread / len(differences) ** 0.5), len(differences) - 1))


def holm(p_values: Sequence[float], level: float = 1 - LEVEL) -> list[bool]:
    """Return which hypotheses Holm's procedure (1979) rejects, which holds the family-wise error at ``level``."""
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def not_worse(cells: Mapping[str, Mapping[int, float]]) -> set[str]:
    """Name the cell of the highest mean, and those that are not significantly below it (paired by seed, Holm, 5 %).

    A cell that shares fewer than two seeds with the best cannot be tested, and is not named.

    Args:
        cells: values by seed, none of them empty.
    """
    means = {name: fmean(values.values()) for name, values in cells.items()}
    best = max(means, key=means.__getitem__)
    tested = {name: p for name in cells if name != best and (p := paired(cells[best], cells[name])) is not None}
    worse = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {best} | {name for name, is_worse in worse.items() if not is_worse}
