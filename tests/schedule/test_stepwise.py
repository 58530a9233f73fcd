import pytest

from dstrun.config.composition import compose
from dstrun.schedule.stepwise import Stepwise
from dstrun.system.trouble import ConfigError


@pytest.mark.parametrize(("step", "fraction"), [(0, 0.2), (1, 0.2), (39, 0.2), (40, 0.1), (59, 0.1), (60, 0), (100, 0)])
def test_hand_values(step, fraction):
    assert Stepwise(milestones=(0.4,)).fraction_at(step, 100) == fraction


def test_several_steps_down():
    schedule = Stepwise(fraction=0.8, milestones=(0.2, 0.5), drop=0.25, end=1)
    assert [schedule.fraction_at(s, 10) for s in (1, 2, 4, 5, 9, 10)] == pytest.approx([0.8, 0.2, 0.2, 0.05, 0.05, 0])
    assert Stepwise(milestones=()).fraction_at(59, 100) == 0.2


def test_it_never_rises():
    schedule = compose(["method=mest"]).build("schedule")
    fractions = [schedule.fraction_at(step, 1000) for step in range(1001)]
    assert fractions == sorted(fractions, reverse=True)
    assert set(fractions) == {0.2, 0.1, 0}


def test_milestones_must_increase():
    with pytest.raises(ConfigError) as error:
        Stepwise(milestones=(0.5, 0.5))
    assert str(error.value) == "schedule.milestones=[0.5, 0.5] must increase"
