"""Statistics of few seeds, against scipy's own and worked examples."""

from __future__ import annotations

import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from dstrun.report.table.statistics import half_width, holm, not_worse, paired


def test_the_interval_of_three_seeds() -> None:
    assert half_width(1.0, 3) == pytest.approx(2.484, abs=1e-3)
    low, high = student.interval(0.95, 4, loc=10, scale=0.7 / 5**0.5)
    assert half_width(0.7, 5) == pytest.approx((high - low) / 2)


def test_paired_by_seed() -> None:
    one, other = {0: 90.1, 1: 90.4, 2: 90.9, 3: 1.0}, {2: 90.2, 0: 89.2, 1: 89.8, 4: 99.0}
    expected = ttest_rel([90.1, 90.4, 90.9], [89.2, 89.8, 90.2]).pvalue
    assert paired(one, other) == pytest.approx(expected)
    assert paired(other, one) == pytest.approx(expected)


def test_too_few_shared_seeds_cannot_be_tested() -> None:
    assert paired({0: 1.0, 1: 2.0}, {1: 1.0, 2: 2.0}) is None


def test_differences_that_are_all_the_same() -> None:
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == 1
    assert paired({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}) == 0


def test_holm() -> None:
    # Sorted, 0.01 <= 0.05 / 4 and 0.013 <= 0.05 / 3, but 0.03 > 0.05 / 2, and so 0.04 is kept too.
    assert holm([0.03, 0.01, 0.04, 0.013]) == [False, True, False, True]
    assert holm([]) == []


def test_not_worse() -> None:
    cells = {
        "best": {0: 90.0, 1: 91.0, 2: 92.0},
        "near": {0: 90.4, 1: 90.1, 2: 91.9},
        "below": {0: 85.0, 1: 86.1, 2: 87.0},
        "alone": {7: 90.9},
    }
    assert not_worse(cells) == {"best", "near"}
    # Of one pair p would be 0.04; among three such pairs that is no evidence.
    close = {"a": {0: 0.0, 1: 0.0, 2: 0.0}} | {name: {0: -1.0, 1: -1.5, 2: -0.9} for name in "b"}
    p = paired(close["a"], close["b"])
    assert p is not None
    assert 0.05 / 3 < p < 0.05
    assert not_worse(close) == {"a"}
    assert not_worse(close | {"c": close["b"], "d": close["b"]}) == {"a", "b", "c", "d"}
