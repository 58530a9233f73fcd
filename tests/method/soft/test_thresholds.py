"""STR and AutoSparse by hand: forward, gradients of weights and threshold, annealing, what emerges."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from soft_bench import Soft

from dstrun.config.composition import compose
from dstrun.method.pruning import EmptyLayer
from dstrun.method.soft.autosparse import AutoSparse
from dstrun.method.soft.str import STR
from dstrun.method.soft.threshold import Threshold
from dstrun.method.update import ProductCounts
from dstrun.run.assemble import assemble
from dstrun.run.plan import SPARSITY_IS_LEARNED, plan
from dstrun.system.trouble import ConfigError

G = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
HALF = math.log(0.45 / 0.55)
"""s of the threshold 0.45: of 0.1, -0.2, ... -0.8 the last four are above it."""


def test_str_by_hand() -> None:
    """w~ = sign(w) (|w| - 0.45); g passes where active; dL/ds = -0.45 * 0.55 (5 - 6 + 7 - 8)."""
    bench = Soft(STR(s_init=HALF), G)
    assert bench.computed == [0, 0, 0, 0, 0.05, -0.15, 0.25, -0.35]
    bench.backward()
    assert bench.grad == [0, 0, 0, 0, 5, 6, 7, 8]
    assert bench.procedure.modules[0].s.grad.item() == pytest.approx(0.45 * 0.55 * 2)
    assert bench.procedure.products() == ProductCounts([4], [4], [4])


def test_str_has_the_gradient_of_its_formula() -> None:
    w = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    threshold = Threshold(w.detach(), -0.5)
    assert torch.autograd.gradcheck(lambda w, _s: threshold(w), (w, threshold.s))


def test_autosparse_by_hand() -> None:
    """With alpha 0.5 pruned weights have half of g; dL/ds = -0.45 * 0.55 ((1 - 2 + 3 - 4) / 2 + 5 - 6 + 7 - 8)."""
    bench = Soft(AutoSparse(s_init=HALF, alpha=0.5, alpha_curve="fixed"), G)
    assert bench.computed == [0, 0, 0, 0, 0.05, -0.15, 0.25, -0.35]
    bench.backward()
    assert bench.grad == [0.5, 1, 1.5, 2, 5, 6, 7, 8]
    assert bench.procedure.modules[0].s.grad.item() == pytest.approx(0.45 * 0.55 * 3)
    assert bench.procedure.products() == ProductCounts([4], [4], [8])


def test_alpha_one_is_the_dense_gradient() -> None:
    bench = Soft(AutoSparse(s_init=HALF, alpha=1.0, alpha_curve="fixed"), G)
    bench.backward()
    assert bench.grad == G


def test_backward_sparsity_leaves_the_pruned_nearest_to_the_threshold() -> None:
    """A quarter of 8 without gradient: 0.1 and -0.2; s hears nothing of them."""
    bench = Soft(AutoSparse(s_init=HALF, alpha=0.5, alpha_curve="fixed", backward_sparsity=0.25), G)
    bench.backward()
    assert bench.grad == [0, 0, 1.5, 2, 5, 6, 7, 8]
    assert bench.procedure.modules[0].s.grad.item() == pytest.approx(-0.45 * 0.55 * ((3 - 4) / 2 - 2))
    assert bench.procedure.products() == ProductCounts([4], [4], [6])


def test_backward_sparsity_never_takes_the_gradient_of_an_active_weight() -> None:
    bench = Soft(AutoSparse(s_init=HALF, alpha=0.5, alpha_curve="fixed", backward_sparsity=0.75), G)
    bench.backward()
    assert bench.grad == [0, 0, 0, 0, 5, 6, 7, 8]
    assert bench.procedure.products() == ProductCounts([4], [4], [4])


def test_alpha_is_reset_and_then_it_is_str() -> None:
    bench = Soft(AutoSparse(s_init=HALF, alpha=1.0, threshold_decay=0), [0.0] * 8, total=10)
    alphas = []
    for _ in range(10):
        alphas.append(bench.procedure.alpha)
        bench.step()
    assert alphas[0] == 1
    assert all(0 < a <= b for b, a in pairwise(alphas[:9]))
    assert alphas[9] == 0


def test_a_pruned_weight_comes_back_with_its_own_value() -> None:
    """0.1 moves by 0.1 * 0.5 * 8 to 0.5 and is used as 0.05; STR leaves it where it is."""
    down = [-8.0, 0, 0, 0, 0, 0, 0, 0]
    bench = Soft(AutoSparse(s_init=HALF, alpha=0.5, alpha_curve="fixed", threshold_decay=0), down, lr=0.1)
    bench.step()
    assert bench.stored[0] == 0.5
    assert bench.computed[0] > 0
    other = Soft(STR(s_init=HALF, threshold_decay=0), down, lr=0.1)
    other.step()
    assert other.stored[0] == 0.1


def test_weight_decay_of_the_threshold_is_its_own_and_grows_in_a_short_run() -> None:
    """s falls from -8 by lr 0.1 * 0.5, where 10 of 50 recipe steps take 5 times 0.1; weights by lr * 0.2."""
    bench = Soft(STR(s_init=-8.0, threshold_decay=0.1, recipe_steps=50), [0.0] * 8, lr=0.1, decay=0.2)
    bench.step()
    assert bench.procedure.modules[0].s.item() == pytest.approx(-8 * (1 - 0.1 * 0.5))
    assert bench.stored[7] == pytest.approx(-0.8 * 0.98)
    assert STR(threshold_decay=0.1, recipe_steps=50).decay(500) == 0.1


def test_the_last_step_leaves_the_sparse_network() -> None:
    bench = Soft(STR(s_init=HALF, threshold_decay=0), [0.0] * 8, total=2)
    assert bench.step() is None
    assert bench.layer.count == 8
    before = bench.computed
    update = bench.step()
    assert (update.changes[0].active, update.changes[0].pruned) == (4, 4)
    assert bench.layer.topology.positions.tolist() == [4, 5, 6, 7]
    assert bench.computed == before
    assert bench.stored[:4] == [0, 0, 0, 0]
    assert bench.procedure.products().forward == [4]


def test_a_layer_that_empties_is_refused_where_strict() -> None:
    bench = Soft(STR(s_init=5.0, threshold_decay=0), [0.0] * 8, total=1, strict=True)
    with pytest.raises(
        EmptyLayer, match="no connection would be left in 0, 1 of 1 layers, and strict=true refuses that"
    ):
        bench.step()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_thresholds_act_on_the_weights_after_powerprop(power: float) -> None:
    bench = Soft(STR(s_init=HALF), G, power=power)
    assert bench.computed == [0, 0, 0, 0, 0.05, -0.15, 0.25, -0.35]
    bench.backward()
    assert bench.grad[4] == pytest.approx(5 * power * 0.5 ** ((power - 1) / power), rel=1e-4)


@pytest.mark.parametrize("name", ["str", "autosparse"])
def test_about_nine_in_ten_weights_go_by_default(name: str) -> None:
    """In a short run, as in a longer one: the decay of thresholds grows as the run shrinks."""
    words = ["dataset=digits", "model=resnet20", "model.width=0.5", "epochs=10", "threads=1", f"method={name}"]
    threads = torch.get_num_threads()
    training = assemble(compose(words), torch.device("cpu"))
    training.model.train()
    while training.step < training.total_steps:
        training.take_step()
    torch.set_num_threads(threads)
    assert 0.8 < 1 - sum(training.active()) / sum(training.sizes) < 0.95
    assert training.evaluate()["top1"] > 85


@pytest.mark.parametrize("name", ["str", "autosparse"])
def test_plan_says_that_its_numbers_are_bounds(name: str) -> None:
    made = plan(compose(["dataset=digits", "model=mlp", "epochs=2", f"method={name}"]))
    assert made["notes"] == [SPARSITY_IS_LEARNED]
    assert made["flops"]["train_x_dense"] == 1
    assert plan(compose(["dataset=digits", "model=mlp", "method=static"]))["notes"] == []


WHY = "whose thresholds are learned and find the sparsity"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=str", "sparsity=0.9"], f"sparsity=0.9 makes no sense with method=str, {WHY}: leave it at 0"),
        (["method=autosparse", "allocation=erk"], f"allocation=erk makes no sense with method=autosparse, {WHY}"),
        (["method=str", "prune=magnitude"], f"prune=magnitude makes no sense with method=str, {WHY}"),
        (
            ["method=str", "backend=sparse"],
            "backend=sparse makes no sense with method=str, which keeps all weights beside their thresholds",
        ),
        (["method=autosparse", "method.backward_sparsity=1"], "method.backward_sparsity=1 must be in [0, 1)"),
        (["method=str", "method.threshold_decay=-1"], "method.threshold_decay=-1 must be at least 0"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(words)
    assert str(error.value) == message
