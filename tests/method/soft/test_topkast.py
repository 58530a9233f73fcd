"""Top-KAST by hand, and the laws of A and B."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from soft_bench import Soft
from torch import nn

from dstrun.backend.masked.layer import wrap
from dstrun.config.composition import compose
from dstrun.method.soft.selected import Selected
from dstrun.method.soft.topkast import TopKAST
from dstrun.method.update import ProductCounts
from dstrun.optimizer.adam import Adam
from dstrun.optimizer.adamw import AdamW
from dstrun.system.trouble import ConfigError

G = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def method(**changes) -> TopKAST:
    """Refresh after every step, without a penalty."""
    return TopKAST(**{"refresh_steps": 1, "exploration_decay": 0.0, "backward_sparsity": 0.5} | changes)


def test_forward_and_backward_by_hand() -> None:
    """A are the 2 largest of 8, B the 4 largest: the forward pass has A alone, gradients reach B."""
    bench = Soft(method(), G, active=2)
    assert bench.computed == [0, 0, 0, 0, 0, 0, 0.7, -0.8]
    bench.backward()
    assert bench.grad == [0, 0, 0, 0, 1, 1, 1, 1]
    assert bench.procedure.products() == ProductCounts([2], [2], [4])


def test_a_weight_enters_with_its_stored_value() -> None:
    """lr 0.1: of B, 0.5 grows to 0.9 by g = -4 and passes 0.7, which keeps its place in the store."""
    bench = Soft(method(), [0, 0, 0, 0, -4, 0, 0, 0], active=2, lr=0.1)
    update = bench.step()
    assert bench.stored == [0.1, -0.2, 0.3, -0.4, 0.9, -0.6, 0.7, -0.8]
    assert bench.computed == [0, 0, 0, 0, 0.9, 0, 0, -0.8]
    (change,) = update.changes
    assert (change.active, change.pruned, change.grown, change.candidates, change.explored) == (2, 1, 1, 2, 3 / 8)


def test_exploration_loss_by_hand() -> None:
    """lambda (theta in A, theta / D in B without A, D = 2/8, 0 outside), no weight decay of the optimizer's besides."""
    bench = Soft(method(exploration_decay=0.1), [0.0] * 8, active=2, decay=0.5)
    assert bench.procedure.penalty(1).item() == pytest.approx(0.05 * (0.49 + 0.64 + 4 * (0.25 + 0.36)))
    bench.backward()
    assert bench.grad == pytest.approx([0, 0, 0, 0, 0.4 * 0.5, -0.4 * 0.6, 0.07, -0.08])
    bench.optimizer.step()
    assert bench.stored[:4] == [0.1, -0.2, 0.3, -0.4]
    assert bench.stored[4:] == pytest.approx([0.3, -0.36, 0.63, -0.72])


def test_other_parameters_keep_their_weight_decay() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
    TopKAST().reparametrize(model, wrap(model, torch.device("cpu")))
    rest, stored = TopKAST().parameters(model, 0.01)
    assert (rest["weight_decay"], stored["weight_decay"]) == (0.01, 0.0)
    assert [tuple(p.shape) for p in stored["params"]] == [(2, 4)]
    assert len(rest["params"]) == 3


@pytest.mark.parametrize("optimizer", [None, AdamW(lr=0.05, weight_decay=0.5)], ids=["sgd", "adamw"])
def test_a_weight_that_leaves_b_stops_at_once(optimizer) -> None:
    """Momentum of the weight at 4 would go on when it leaves B; it must not, and starts from 0 when it is back."""
    given_ = {"lr": 0.05, "momentum": 0.9} if optimizer is None else {"optimizer": optimizer}
    bench = Soft(method(), [0, 0, 0, 0, 1.0, 0, 0, 0], active=2, total=50, decay=0.5, **given_)
    stood = 0
    for _ in range(40):
        outside = ~bench.procedure.chosen[0].reached.flatten()
        before = bench.layer.weight.detach().flatten().clone()
        bench.step()
        assert torch.equal(bench.layer.weight.detach().flatten()[outside], before[outside])
        stood += bool(outside[4])
    assert stood > 5


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_a_weight_that_is_back_in_b_moves_as_under_an_adam_that_starts_with_it(kind) -> None:
    """Its first update is then the learning rate, whatever its gradient; with the steps of all it would be more."""
    bench = Soft(method(), G, active=2, total=200, optimizer=kind(lr=0.05, weight_decay=0))
    reached, back = bench.procedure.chosen[0].reached.flatten().clone(), 0
    torch.manual_seed(0)
    for number in range(150):
        bench.gradient = torch.randn(2, 4) + bench.layer.weight.detach()  # back to where B is decided
        now = bench.procedure.chosen[0].reached.flatten().clone()
        entered = now & ~reached & (number > 20)
        before, reached = bench.layer.weight.detach().flatten().clone(), now
        bench.step()
        moved = (bench.layer.weight.detach().flatten() - before).abs()[entered]
        torch.testing.assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-3, atol=0)
        back += len(moved)
    assert back > 5


def test_exploration_ends_and_the_store_is_dropped() -> None:
    """From half of 10 steps on, B is A: others have neither weight, gradient nor momentum, and A stays."""
    bench = Soft(method(explore_end=0.5), G, active=2, lr=0.01, momentum=0.9)
    updates = [bench.step() for _ in range(10)]
    assert [update is not None for update in updates] == [True] * 5 + [False] * 5
    assert bench.layer.topology.positions.tolist() == [5, 7]
    assert (updates[4].changes[0].pruned, updates[4].changes[0].active) == (6, 2)
    assert bench.stored == bench.computed
    assert [value != 0 for value in bench.stored] == [False] * 5 + [True, False, True]
    assert bench.procedure.products() == ProductCounts([2], [2], [2])


def test_explores_to_the_end_by_default_and_ends_sparse() -> None:
    bench = Soft(method(), G, active=2, lr=0.01)
    for _ in range(9):
        bench.step()
    assert bench.layer.count == 8
    bench.step()
    assert bench.layer.count == 2
    assert bench.stored == bench.computed


def test_refreshes_shrink_with_the_run() -> None:
    assert TopKAST().refreshes(32_000) == range(100, 32_000, 100)
    assert TopKAST().refreshes(78_000) == range(100, 78_000, 100)
    assert TopKAST().refreshes(3_200) == range(10, 3_200, 10)
    assert TopKAST(explore_end=0.5).refreshes(33) == range(1, 16)
    assert TopKAST(explore_end=0).last(33) == 1


def test_forecast_is_what_the_procedure_counts() -> None:
    option = method(explore_end=0.6)
    bench = Soft(option, G, active=2, lr=0.01)
    counted = []
    for _ in range(10):
        counted.append(bench.procedure.products())
        bench.step()
    foretold = [products for steps, products in option.planned_phases([8], [2], None, 10) for _ in range(steps)]
    assert foretold == counted


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 0.99),
)
def test_b_contains_a_and_has_the_backward_density(layers: list[tuple[int, float]], backward: float) -> None:
    sizes = [size for size, _ in layers]
    counts = [max(1, round(share * size)) for size, share in layers]
    reached = TopKAST(backward_sparsity=backward).reached(sizes, counts)
    assert all(a <= b <= n for a, b, n in zip(counts, reached, sizes, strict=True))
    if sum(counts) <= (1 - backward) * sum(sizes):
        assert abs(sum(reached) - (1 - backward) * sum(sizes)) <= len(sizes) / 2 + 1e-6


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 1000))
def test_a_lies_in_b_and_both_are_exact(active: int, more: int, seed: int) -> None:
    module, reached = nn.Linear(4, 2), min(8, active + more)
    weight = module.weight.data.copy_(torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)))
    (layer,) = wrap(module, torch.device("cpu"))
    chosen = Selected(weight)
    chosen.choose(layer, active, reached)
    assert (chosen.active.sum(), chosen.reached.sum()) == (active, reached)
    assert not (chosen.active & ~chosen.reached).any()
    assert weight.abs()[chosen.active].min() >= weight.abs()[~chosen.active].max() if active < 8 else True


def test_gradient_outside_b_is_zero_even_where_it_is_infinite() -> None:
    weight = torch.tensor([1.0, 0.1], requires_grad=True)
    chosen = Selected(weight.detach())
    for mask in (chosen.active, chosen.reached):
        mask[1] = False
    (chosen(weight) * torch.tensor([1.0, float("inf")])).nansum().backward()
    assert weight.grad.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["sparsity=0.3"],
            "method.backward_sparsity=0.5 must be at most sparsity=0.3: "
            "the backward pass uses more connections than the forward pass, not fewer",
        ),
        (
            ["scope=global"],
            "scope=global makes no sense with method=topkast, which takes the largest weights of each layer",
        ),
        (
            ["backend=sparse"],
            "backend=sparse makes no sense with method=topkast, which keeps dense weights to choose from",
        ),
        (["grow=gse"], "grow=gse makes no sense with method=topkast, which takes the largest weights of each layer"),
        (["method.explore_end=2"], "method.explore_end=2 must be in [0, 1]"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(["method=topkast", *words])
    assert str(error.value) == message
