"""Top-k with gradient annealing by hand, and the curves of alpha."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from soft_bench import Soft

from dstrun.config.composition import compose
from dstrun.method.soft.annealing import curve
from dstrun.method.soft.topk_ga import TopKGA
from dstrun.method.update import ProductCounts
from dstrun.system.trouble import ConfigError

CURVES = ("sigmoid_cosine", "cosine", "sigmoid", "linear", "fixed")
G = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_forward_and_backward_by_hand() -> None:
    """The 3 largest of 8 are used; the others get 0.5 of their gradient."""
    bench = Soft(TopKGA(alpha=0.5, alpha_curve="fixed"), G, active=3)
    assert bench.computed == [0, 0, 0, 0, 0, -0.6, 0.7, -0.8]
    bench.backward()
    assert bench.grad == [0.5, 1, 1.5, 2, 2.5, 6, 7, 8]
    assert bench.procedure.products() == ProductCounts([3], [3], [8])


def test_a_weight_comes_in_when_it_has_grown() -> None:
    """Of gradient -8 half reaches 0.1, which becomes 0.1 + 0.2 * 4 = 0.9 and pushes out 0.6."""
    bench = Soft(TopKGA(alpha=0.5, alpha_curve="fixed"), [-8, 0, 0, 0, 0, 0, 0, 0], active=3, lr=0.2)
    assert bench.step() is None
    assert bench.computed == [0.9, 0, 0, 0, 0, 0, 0.7, -0.8]


def test_when_alpha_is_zero_the_others_are_pruned_and_never_move() -> None:
    bench = Soft(TopKGA(), G, active=3, lr=0.01, momentum=0.9, decay=0.1)
    updates = [bench.step() for _ in range(9)]
    assert [update is not None for update in updates] == [False] * 8 + [True]
    assert updates[8].changes[0].pruned == 5
    positions = bench.layer.topology.positions.tolist()
    assert len(positions) == 3
    assert bench.procedure.products() == ProductCounts([3], [3], [3])
    bench.backward()
    assert sum(value != 0 for value in bench.grad) == 3
    bench.optimizer.zero_grad()
    bench.step()
    assert bench.stored == bench.computed
    assert [i for i, value in enumerate(bench.stored) if value] == positions


def test_alpha_zero_from_the_start_trains_the_first_choice() -> None:
    bench = Soft(TopKGA(alpha=0.0), G, active=3)
    bench.backward()
    assert bench.grad == [0, 0, 0, 0, 0, 6, 7, 8]
    assert bench.procedure.products() == ProductCounts([3], [3], [3])


@pytest.mark.parametrize("alpha_end", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_forecast_is_what_the_procedure_counts(alpha: float, alpha_end: float) -> None:
    option = TopKGA(alpha=alpha, alpha_end=alpha_end)
    bench = Soft(option, G, active=3, lr=0.001)
    counted = []
    for _ in range(10):
        counted.append(bench.procedure.products())
        bench.step()
    assert [products for steps, products in option.planned_phases([8], [3], None, 10) for _ in range(steps)] == counted
    assert bench.layer.count == 3


def test_curves_by_hand() -> None:
    """At a quarter and at half of training."""
    quarter = (1 + math.sqrt(0.5)) / 2
    assert curve("cosine", 0.25) == pytest.approx(quarter)
    assert curve("sigmoid", 0.25) == pytest.approx(1 - 1 / (1 + math.exp(3)))
    assert curve("sigmoid_cosine", 0.25) == pytest.approx(1 - 1 / (1 + math.exp(3)))
    assert curve("sigmoid_cosine", 0.75) == pytest.approx(1 - quarter)
    assert curve("linear", 0.25) == 0.75
    assert [curve(name, 0.5) for name in CURVES] == pytest.approx([0.5, 0.5, 0.5, 0.5, 1])


@given(
    st.sampled_from(CURVES), st.floats(0, 1), st.floats(0, 1), st.integers(1, 300),
)  # fmt: skip
def test_alpha_only_falls_and_ends_at_zero(name: str, alpha: float, alpha_end: float, total: int) -> None:
    option = TopKGA(alpha=alpha, alpha_curve=name, alpha_end=alpha_end)
    alphas = [option.alpha_at(step, total) for step in range(1, total + 2)]
    assert all(0 <= after <= before + 1e-12 for before, after in pairwise(alphas))
    assert alphas[0] <= alpha
    assert all(a == 0 for a in alphas[max(1, round(alpha_end * total)) :])


def test_state_carries_alpha_on() -> None:
    one, other = (Soft(TopKGA(alpha_curve="linear"), G, active=3) for _ in range(2))
    for _ in range(4):
        one.step()
    other.procedure.load_state(one.procedure.state())
    assert one.procedure.modules[0].alpha == other.procedure.modules[0].alpha == pytest.approx(0.75 * 0.6)
    assert torch.is_tensor(other.procedure.modules[0].active)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["scope=global"],
            "scope=global makes no sense with method=topk_ga, which takes the largest weights of each layer",
        ),
        (["method.alpha=1.5"], "method.alpha=1.5 must be in [0, 1]"),
        (
            ["method.alpha_curve=cosin"],
            "method.alpha_curve=cosin is not known: choose sigmoid_cosine, cosine, sigmoid, linear, fixed "
            "(did you mean cosine?)",
        ),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(["method=topk_ga", *words])
    assert str(error.value) == message
