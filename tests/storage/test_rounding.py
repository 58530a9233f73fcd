"""Stochastic rounding is right on average, and exact where nothing has to be rounded."""

from __future__ import annotations

import pytest
import torch

from dstrun.storage.rounding import CHANCES, Draws, stochastic

KINDS = [torch.bfloat16, torch.float16]


def draws(seed: int, count: int, start: int = 0) -> torch.Tensor:
    return Draws(seed, start, count, torch.device("cpu")).next()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("value", [1.003, -0.7001, 3.0001e-6, -2e-8, 517.3])
def test_the_mean_is_the_number(dtype: torch.dtype, value: float) -> None:
    """Within five standard deviations of the mean of 2^16 numbers, each one of two neighbours."""
    count = 1 << 16
    rounded = stochastic(torch.full((count,), value), dtype, draws(7, count)).double()
    low, high = rounded.min(), rounded.max()
    near = torch.tensor([low, high]).to(dtype)
    assert torch.equal(near.double(), torch.stack([low, high]))
    assert set(rounded.tolist()) == {float(low), float(high)}
    assert float(low) < value < float(high)
    assert abs(float(rounded.mean()) - value) < 5 * float(high - low) / 2 / count**0.5


@pytest.mark.parametrize("dtype", KINDS)
def test_what_is_representable_stays_whatever_is_drawn(dtype: torch.dtype) -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[(every.float() == 0) | (every.float().abs() > 1e-37) | every.isnan()]
    for drawn in (0, 1, 12345, CHANCES - 1):
        rounded = stochastic(every.float(), dtype, torch.full(every.shape, drawn, dtype=torch.int32))
        assert torch.equal(rounded.isnan(), every.isnan())
        assert torch.equal(rounded.nan_to_num(0.0), every.nan_to_num(0.0))


def test_draws_are_even_and_belong_to_places_and_seeds() -> None:
    count = 1 << 14
    made = Draws(3, 0, count, torch.device("cpu"))
    several = torch.stack([made.next() for _ in range(4)] + [draws(4, count), draws(3 + (1 << 40), count)])
    assert several.min() >= 0
    assert several.max() < CHANCES
    centred = several.double() / CHANCES - 0.5
    assert (centred.mean(1).abs() < 5 / 12**0.5 / count**0.5).all()
    assert ((centred @ centred.t() * 12 / count - torch.eye(6)).abs() < 5 / count**0.5 * 2).all()
    assert torch.equal(draws(3, count - 100, start=100), several[0, 100:])
