import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrun.optimizer.adamw import AdamW
from dstrun.optimizer.sgd import SGD
from dstrun.system.trouble import ConfigError

both = pytest.mark.parametrize("optimizer", [SGD, AdamW])


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 0.1), (31_199, 0.1), (31_200, 0.01), (46_799, 0.01), (46_800, 0.001), (77_999, 0.001)],
)
def test_gse_drops_at_epochs_80_and_120(step, lr):
    assert SGD().lr_at(step, 78_000) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("step", "lr"),
    [(29_999, 0.1), (30_000, 0.02), (59_999, 0.02), (60_000, 0.004), (89_999, 0.004), (90_000, 0.0008)],
)
def test_rigl_drops_every_30000_steps(step, lr):
    rate = SGD(lr=0.1, lr_milestones=[0.3072, 0.6144, 0.9216], lr_drop=0.2)
    assert rate.lr_at(step, 97_656) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("step", "lr"), [(0, 1), (20, 0.5 * (1 + math.sqrt(0.5))), (40, 0.5), (60, 0.5 * (1 - math.sqrt(0.5)))]
)
def test_cosine_falls_to_zero_at_the_end(step, lr):
    assert SGD(lr=1, lr_schedule="cosine").lr_at(step, 80) == pytest.approx(lr)


@both
def test_constant_stays(optimizer):
    rate = optimizer(lr=0.3, lr_schedule="constant")
    assert {rate.lr_at(step, 50) for step in range(50)} == {0.3}


def test_warmup_rises_linearly_then_the_schedule_starts():
    rate = AdamW(lr=1.0, lr_schedule="cosine", lr_warmup=0.04)
    assert [rate.lr_at(step, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate.lr_at(52, 100) == pytest.approx(0.5)
    # Milestones are shares of all of training, warmup or not.
    stepwise = SGD(lr=1.0, lr_warmup=0.04, lr_milestones=[0.4], lr_drop=0.1)
    assert [stepwise.lr_at(step, 100) for step in (3, 4, 39, 40)] == pytest.approx([0.8, 1, 1, 0.1])


@given(
    schedule=st.sampled_from(["multistep", "cosine", "constant"]),
    warmup=st.floats(0, 1, exclude_max=True),
    total=st.integers(1, 300),
)
@settings(max_examples=100, deadline=None)
def test_the_rate_is_positive_rises_in_warmup_and_never_after(schedule, warmup, total):
    rate = SGD(lr=0.1, lr_schedule=schedule, lr_warmup=warmup)
    rates = [rate.lr_at(step, total) for step in range(total)]
    assert all(0 < lr <= 0.1 * (1 + 1e-12) for lr in rates)
    warm = math.ceil(warmup * total)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)


@both
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0}, "optimizer.lr=0 must be in (0, 1e+06]"),
        ({"weight_decay": -1e-4}, "optimizer.weight_decay=-0.0001 must be at least 0"),
        (
            {"lr_schedule": "cosin"},
            "optimizer.lr_schedule=cosin is not known: choose multistep, cosine, constant (did you mean cosine?)",
        ),
        ({"lr_milestones": [0.6, 0.4]}, "optimizer.lr_milestones=[0.6, 0.4] must increase"),
        ({"lr_milestones": [0.4, 0.4]}, "optimizer.lr_milestones=[0.4, 0.4] must increase"),
        ({"lr_milestones": [0.4, 1.4]}, "optimizer.lr_milestones=1.4 must be in [0, 1]"),
        ({"lr_drop": 0}, "optimizer.lr_drop=0 must be in (0, 1]"),
        ({"lr_warmup": 1}, "optimizer.lr_warmup=1 must be in [0, 1)"),
    ],
)
def test_wrong_settings(optimizer, wrong, message):
    with pytest.raises(ConfigError) as error:
        optimizer(**wrong)
    assert str(error.value) == message
