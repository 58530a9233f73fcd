"""A fixed total shared by need: exact, within caps, and in proportion where nothing is capped."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dstrun.method.dynamic.regrowth import regrowth


def test_in_proportion_to_need():
    assert regrowth([3.0, 1.0], 4, [100, 100]) == [3, 1]
    assert regrowth([0.2, 0.5, 0.3], 10, [100, 100, 100]) == [2, 5, 3]
    assert regrowth([0.0, 0.0], 5, [10, 10]) == [3, 2]


def test_by_largest_remainder():
    # 7 x (0.5, 0.3, 0.2) = 3.5, 2.1, 1.4: the missing one goes to the first.
    assert regrowth([0.5, 0.3, 0.2], 7, [100, 100, 100]) == [4, 2, 1]


def test_the_excess_of_a_full_layer_goes_to_the_others_in_equal_parts():
    # 100 x (0.8, 0.1, 0.1) = 80, 10, 10; the first holds 0.99 x 50 = 49, and 31 are left: 15.5 each, on top of 10.
    assert regrowth([0.8, 0.1, 0.1], 100, [50, 100, 100]) == [49, 26, 25]
    # The second then holds no more than 0.99 x 21 = 20: the third takes what is over.
    assert regrowth([0.8, 0.1, 0.1], 100, [50, 21, 100]) == [49, 20, 31]


def test_the_cap_gives_way_where_the_total_fits_nowhere_else():
    assert regrowth([0.5, 0.5], 4, [2, 2]) == [2, 2]


@st.composite
def cases(draw):
    free = draw(st.lists(st.integers(0, 500), min_size=1, max_size=8))
    need = draw(st.lists(st.floats(0, 1e3), min_size=len(free), max_size=len(free)))
    return need, draw(st.integers(0, sum(free))), free


@given(cases())
def test_the_total_is_conserved_and_caps_hold(case):
    need, total, free = case
    counts = regrowth(need, total, free)
    caps = [math.floor(0.99 * count) for count in free]
    caps = caps if sum(caps) >= total else free
    assert sum(counts) == total
    assert all(0 <= count <= cap for count, cap in zip(counts, caps, strict=True))
    shares = [total * part / sum(need) if sum(need) else total / len(need) for part in need]
    for count, share, cap in zip(counts, shares, caps, strict=True):
        assert count >= min(math.floor(share - 1e-6), cap)  # only a cap takes anything away
    if all(share <= cap for share, cap in zip(shares, caps, strict=True)):
        assert all(abs(count - share) < 1 + 1e-6 for count, share in zip(counts, shares, strict=True))
