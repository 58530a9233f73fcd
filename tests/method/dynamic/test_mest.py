"""Elastic mutation and the soft memory bound: counts at every update, what goes, what it costs."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_setting import setting
from scipy.stats import chisquare

from dstrun.config.composition import compose
from dstrun.method.dynamic.mest import MEST
from dstrun.prune.importance import Importance
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan_flops
from dstrun.schedule.stepwise import Stepwise
from dstrun.system.trouble import ConfigError

CPU = torch.device("cpu")
# Eight weights: half active. With lambda = 0.1, |w| + 0.1 |g| = 1.4, 0.4, 0.21, 1.8: 4 is the least important, then 1.
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
GRADIENT = [9.0, 3.0, -2.5, 1.0, 0.1, 2.0, -9.0, 0.0]
QUARTER = Stepwise(fraction=0.25, milestones=(0.5,), drop=0.1, end=0.8, interval_steps=2)
"""In 10 steps: 1 of 4 mutates at 2 and 4, none at 6; the end is at 8."""


def start(made, schedule=QUARTER, total=10, seed=0, coefficient=0.1, **method):
    """Let a bench train by MEST; its layers have the budget now."""
    parts = {"prune": Importance(coefficient=coefficient), "schedule": schedule}
    run = {"counts": [layer.count for layer in made.layers], "total_steps": total, "seed": seed}
    made.procedure = MEST(**method).procedure(setting(made.layers, **parts, **run))
    return made


def test_elastic_mutation_by_hand(bench):
    grown = dict.fromkeys([2, 3, 4, 5, 7], 0)
    for seed in range(300):
        made = start(bench((WEIGHTS, GRADIENT), lr=1e-9), seed=seed)
        assert made.step() == (None, None)
        hook, update = made.step()
        weights = made.weights()
        assert {p: w for p, w in weights.items() if p in (0, 1, 6)} == {0: 0.5, 1: -0.1, 6: -0.9}
        (new,) = weights.keys() - {0, 1, 6}
        assert weights[new] == 0  # 4 too: it comes back at 0
        grown[new] += 1
        (change,) = update.changes
        moved = 0 if new == 4 else 1
        assert (hook, change.active, change.pruned, change.grown, change.candidates) == ("after", 4, moved, moved, 1)
    assert chisquare(list(grown.values())).pvalue > 1e-3


def test_soft_bound_by_hand(bench):
    made = start(bench((WEIGHTS, GRADIENT), lr=1e-9), soft_bound=True)
    update = made.procedure.prepare()
    assert [(c.active, c.pruned, c.grown) for c in update.changes] == [(5, 0, 1)]
    (extra,) = made.weights().keys() - WEIGHTS.keys()
    importance = {0: 1.4, 1: 0.4, 4: 0.21, 6: 1.8, extra: 0.1 * abs(GRADIENT[extra])}
    least = min(importance, key=importance.__getitem__)
    counts = {}
    for step in range(1, 11):
        _, update = made.step()
        counts[step] = len(made.weights())
        if step == 2:
            assert made.weights().keys() >= importance.keys() - {least}
    # Prunes to 4 and grows 1 at 2 and 4, prunes to 4 at 6, where round(0.1) = 0 mutate, and keeps 4.
    assert list(counts.values()) == [5, 5, 5, 5, 5, 4, 4, 4, 4, 4]


def test_what_was_grown_is_trained_before_it_is_judged(bench):
    # Grown at 0 before the first step, a connection of gradient -9 is at 1.8 when the second step judges it.
    gradient = [0.0] * 8
    for p in (2, 3, 5, 7):
        gradient[p] = -9.0
    made = start(bench((WEIGHTS, gradient), lr=0.1), soft_bound=True, coefficient=0.0)
    made.procedure.prepare()
    (extra,) = made.weights().keys() - WEIGHTS.keys()
    made.step(), made.step()
    assert made.weights()[extra] == pytest.approx(1.8)
    assert made.weights().get(1, 0) == 0  # the least of all five


@given(
    counts=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    fraction=st.floats(0, 1, exclude_min=True),
    soft=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_budget_holds_at_every_step_and_is_met_at_the_end(random_bench, counts, fraction, soft, seed):
    schedule = Stepwise(fraction=fraction, milestones=(0.4,), end=0.7, interval_steps=2)
    made = start(random_bench(counts, seed=seed), schedule, seed=seed, soft_bound=soft)
    if soft:
        made.procedure.prepare()
    for step in range(1, 11):
        _, update = made.step()
        assert made.procedure.updates_at(step) == (update is not None)
        for layer, count in zip(made.layers, counts, strict=True):
            assert count <= layer.count <= (min(24, count + round(fraction * count)) if soft else count)
            assert not layer.module.weight[~layer.mask].any()
    assert [layer.count for layer in made.layers] == counts


# --- the whole run ----------------------------------------------------------------------------------------------------

SMALL = ["dataset=digits", "model=resnet20", "model.width=0.25", "epochs=4", "batch_size=256", "threads=1"]


def trained(*words):
    made = compose([*SMALL, "method=mest", "sparsity=0.8", *words])
    training = assemble(made, CPU)
    training.model.train()
    training.prepare()
    while training.step < training.total_steps:
        training.take_step()
    return made, training


@pytest.mark.parametrize("soft", [False, True])
def test_cost_is_that_of_the_connections_between_updates_and_is_foretold(soft):
    made, training = trained(f"method.soft_bound={str(soft).lower()}")
    counts = [layer.count for layer in training.layers]
    blueprint = Blueprint(made)
    planned = plan_flops(blueprint)
    assert blueprint.counts == counts
    assert planned["train"] == training.flops.train
    assert planned["updates"] == training.updates - soft  # growing to the bound before the first step is no update yet
    static = training.flops.samples * 3 * training.flops.cost.forward(counts)
    assert training.flops.train > static if soft else training.flops.train == static
    assert sum(counts) == round(0.2 * sum(training.sizes))


def test_recipe():
    """The authors' scripts: 90 % to 92 and back every 5 of 160 epochs, to 91 from epoch 90, no more from 120."""
    made = compose(["method=mest"])
    schedule, total = made.build("schedule"), 124960
    steps = [s for s in schedule.steps(total) if schedule.fraction_at(s, total) > 0]
    assert steps == [781 * epoch for epoch in range(5, 120, 5)]
    assert [schedule.fraction_at(781 * e, total) * 0.1 for e in (5, 85, 90, 115)] == pytest.approx(
        [0.02, 0.02, 0.01, 0.01]
    )


@pytest.mark.parametrize("words", ["scope=global", "grow=random"])
def test_refusals(words):
    with pytest.raises(ConfigError) as error:
        compose(["method=mest", words])
    assert str(error.value) == f"{words} makes no sense with method=mest, which grows at random in each layer"
