import math

import pytest

from dstrun.schedule.cosine import Cosine


@pytest.mark.parametrize(
    ("step", "fraction"),
    [(0, 0.2), (10, 0.1 * (1 + math.sqrt(0.75))), (20, 0.15), (30, 0.1), (40, 0.05), (60, 0), (61, 0), (100, 0)],
)
def test_hand_values(step, fraction):
    assert Cosine(fraction=0.2, end=0.6).fraction_at(step, 100) == pytest.approx(fraction)


def test_zero_exactly_from_the_end_on():
    assert Cosine(end=0.6).fraction_at(60, 100) == 0
    assert Cosine(end=0.6).fraction_at(59, 100) > 0
    assert Cosine(end=0).fraction_at(1, 100) == 0


def test_published_fractions():
    # GSE: alpha 0.2 until 46,800; half of it half-way. RigL: alpha 0.3 until 75,000.
    assert Cosine(fraction=0.2, end=0.6).fraction_at(23_400, 78_000) == pytest.approx(0.1)
    rigl = Cosine(fraction=0.3, end=0.768)
    assert rigl.fraction_at(25_000, 97_656) == pytest.approx(0.225)
    assert rigl.fraction_at(74_999, 97_656) > 0
    assert rigl.fraction_at(75_000, 97_656) == 0
