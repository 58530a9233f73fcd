from hypothesis import given
from hypothesis import strategies as st

from dstrun.method.dynamic.stages import stage
from dstrun.schedule.interval import shortened


def test_a_stage_begins_after_its_share_of_the_steps():
    assert [stage((0.25, 0.5), step, 8) for step in range(1, 9)] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert stage((), 5, 8) == 0


def test_an_interval_shortens_in_proportion_and_never_lengthens():
    assert shortened(100, 100_000, 50_000, 47_500) == 50
    assert shortened(100, 100_000, 100_000, 95_000) == 100
    assert shortened(100, 100_000, 500_000, 475_000) == 100
    assert shortened(100, 100_000, 200, 190) == 10
    assert shortened(100, 100_000, 15, 14) == 4
    assert shortened(1, 100_000, 100, 95) == 1


@given(st.integers(1, 2000), st.integers(1, 200_000), st.integers(1, 200_000))
def test_an_interval_is_at_least_a_step(interval, recipe, total):
    assert 1 <= shortened(interval, recipe, total, total) <= interval
