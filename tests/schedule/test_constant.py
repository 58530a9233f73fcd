import pytest

from dstrun.schedule.constant import Constant


@pytest.mark.parametrize(("step", "fraction"), [(1, 0.3), (59, 0.3), (60, 0.3), (61, 0), (100, 0)])
def test_the_same_fraction_up_to_the_end(step, fraction):
    assert Constant(fraction=0.3, end=0.6).fraction_at(step, 100) == fraction
