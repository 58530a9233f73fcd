"""Which learning rate a pruned network goes on with."""

import pytest
from method_setting import setting

from dstrun.method.finetuning import held
from dstrun.optimizer.sgd import SGD


def rate_held(least: float, total: int = 1000, **fields) -> float:
    """Return the rate that is kept, relative to the first."""
    option = SGD(lr=0.1, **fields)
    return option.lr_at(held(setting(rate=option.lr_at, nominal_steps=total), least), total) / option.lr


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({}, 0.01),  # dropped twice by 0.1, which is not below 0.01 for its rounding
        ({"lr_milestones": [0.4, 0.6, 0.8]}, 0.01),
        ({"lr_milestones": [0.4], "lr_warmup": 0.05}, 0.1),
        ({"lr_schedule": "constant"}, 1),
    ],
)
def test_the_last_rate_is_kept_where_it_trains(fields, rate):
    assert rate_held(0.01, **fields) == pytest.approx(rate)


@pytest.mark.parametrize("least", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_a_cosine_stops_where_as_much_is_left_as_said(least):
    assert least <= rate_held(least, lr_schedule="cosine", lr_warmup=0.05) < least + 0.004


def test_zero_keeps_the_very_last():
    option = SGD(lr_schedule="cosine")
    assert held(setting(rate=option.lr_at, nominal_steps=50), 0.0) == 49
