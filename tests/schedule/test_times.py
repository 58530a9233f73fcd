import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrun.schedule.constant import Constant
from dstrun.schedule.cosine import Cosine
from dstrun.system.trouble import ConfigError

GSE = {"fraction": 0.2, "end": 0.6, "recipe_interval_steps": 1000, "recipe_steps": 78000}
RIGL = {"fraction": 0.3, "end": 0.768, "recipe_interval_steps": 100, "recipe_steps": 97656}
SET = {"fraction": 0.3, "end": 0.995, "recipe_interval_steps": 390, "recipe_steps": 78000}
both = pytest.mark.parametrize("schedule", [Constant, Cosine])


def test_gse_updates_46_times_in_its_78000_steps():
    assert Cosine(**GSE).steps(78_000) == list(range(1000, 46_001, 1000))


def test_rigl_updates_every_100_steps_until_75000():
    assert Cosine(**RIGL).steps(97_656) == list(range(100, 75_001, 100))


def test_set_updates_after_every_epoch_but_the_last():
    assert Constant(**SET).steps(200 * 390) == [390 * epoch for epoch in range(1, 200)]


@both
@pytest.mark.parametrize("recipe", [GSE, RIGL, SET], ids=["gse", "rigl", "set"])
@pytest.mark.parametrize("total", [10, 22, 66, 390, 780, 7800])
def test_short_runs_update_too(schedule, recipe, total):
    option = schedule(**recipe)
    steps = option.steps(total)
    effective = [s for s in steps if option.fraction_at(s, total) > 0]
    assert len(effective) >= 2
    assert all(b - a == steps[0] for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("total", "interval"), [(39_000, 500), (7800, 100), (780, 10), (390, 10), (100, 10), (22, 4), (4, 2)]
)
def test_shorter_runs_shorten_the_interval_in_proportion_down_to_ten(total, interval):
    assert Cosine(**GSE).steps(total)[0] == interval


@pytest.mark.parametrize(("recipe", "interval"), [(GSE, 1000), (RIGL, 100), (SET, 390)])
def test_longer_runs_keep_the_interval(recipe, interval):
    total = 5 * recipe["recipe_steps"]
    steps = Cosine(**recipe).steps(total)
    assert steps == list(range(interval, round(recipe["end"] * total) + 1, interval))


@both
def test_the_interval_set_outright(schedule):
    assert schedule(end=0.5, interval_steps=7).steps(60) == [7, 14, 21, 28]
    assert schedule(end=0.5, interval_steps=15).steps(60) == [15, 30]
    assert schedule(end=0.5, interval_steps=31).steps(60) == []
    assert schedule(end=1, interval_steps=1).steps(3) == [1, 2, 3]


@both
def test_updates_set_outright(schedule):
    assert schedule(end=0.5, updates=3).steps(80) == [10, 20, 30]
    assert schedule(end=1, updates=3).steps(4) == [1, 2, 3]
    assert schedule(end=0.5, updates=0).steps(80) == []
    assert schedule(end=0, updates=0).steps(80) == []


@both
def test_the_end_is_the_nearest_step(schedule):
    # 0.7 * 90 is 62.99999999999999 in floating point.
    assert schedule(end=0.7, interval_steps=9).steps(90)[-1] == 63
    assert schedule(end=0.7, updates=62).steps(90)[-1] == 62


@both
@given(total=st.integers(1, 3000), end=st.floats(0, 1), updates=st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_exactly_as_many_updates_as_set(schedule, total, end, updates):
    option = schedule(end=end, updates=updates)
    last = round(end * total)
    if updates and updates >= last:
        with pytest.raises(ConfigError, match=f"schedule.updates={updates} do not fit into the {last} steps before"):
            option.steps(total)
        return
    steps = option.steps(total)
    assert len(set(steps)) == len(steps) == updates
    assert all(1 <= s < last for s in steps)
    assert all(option.fraction_at(s, total) > 0 for s in steps)
    gaps = {b - a for a, b in zip([0, *steps], [*steps, last], strict=True)}
    assert not updates or max(gaps) - min(gaps) <= 1


@both
@given(
    total=st.integers(1, 20_000),
    end=st.floats(0, 1),
    interval=st.none() | st.integers(1, 500),
    recipe=st.integers(1, 2000),
    length=st.integers(1, 100_000),
)
@settings(max_examples=100, deadline=None)
def test_steps_increase_and_lie_before_the_end(schedule, total, end, interval, recipe, length):
    steps = schedule(end=end, interval_steps=interval, recipe_interval_steps=recipe, recipe_steps=length).steps(total)
    assert steps == sorted(set(steps))
    assert all(1 <= s <= round(end * total) for s in steps)


@both
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"interval_steps": 10, "updates": 3},
            "schedule.interval_steps and schedule.updates both set when to update: set one of them",
        ),
        ({"interval_steps": 0}, "schedule.interval_steps=0 must be at least 1"),
        ({"interval_steps": 1.5}, "schedule.interval_steps=1.5 must be a whole number"),
        ({"updates": -1}, "schedule.updates=-1 must be at least 0"),
        ({"fraction": 0.0}, "schedule.fraction=0.0 must be in (0, 1]"),
        ({"end": 1.1}, "schedule.end=1.1 must be in [0, 1]"),
    ],
)
def test_wrong_settings(schedule, wrong, message):
    with pytest.raises(ConfigError) as error:
        schedule(**wrong)
    assert str(error.value) == message


@both
def test_more_updates_than_steps(schedule):
    with pytest.raises(ConfigError) as error:
        schedule(end=0.5, updates=30).steps(60)
    assert str(error.value) == "schedule.updates=30 do not fit into the 30 steps before schedule.end=0.5"


@both
def test_the_first_update_may_come_at_the_beginning(schedule):
    made = schedule(start="begin", begin=0.1, end=0.5, interval_steps=100)
    assert made.steps(1000) == [101, 201, 301, 401]
    assert schedule(start="begin", end=0.5, updates=4).steps(40) == [1, 6, 11, 16]
    assert all(0 < made.fraction_at(step, 1000) <= made.fraction for step in made.steps(1000))
