import math
from itertools import combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.grow.random import Random
from dstrun.layer.criterion import Cost
from dstrun.prune.random import Random as PruneRandom
from dstrun.schedule.constant import Constant
from dstrun.schedule.cosine import Cosine
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform

# Eight weights: half active. At fraction 0.5 the two of smallest magnitude, 1 and 4, are pruned.
#           0     1     2     3     4     5     6     7
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
GRADIENT = [9.0, 3.0, -2.5, 1.0, 0.1, 2.0, -9.0, 0.0]
EIGHT = (WEIGHTS, GRADIENT)

CRITERIA = {
    "random": Random(),
    "gradient": Gradient(),
    "gse": GSE(subset=Uniform()),
    "grabo": GSE(subset=GraBo()),
    "graest": GSE(subset=GraEst(), sampling="single"),
}
ALL = GSE(subset=Uniform(), gamma=100.0)
"""So many candidates that every inactive connection is one."""


# --- eight weights, by hand -------------------------------------------------------------------------------------------


def test_rigl_by_hand(bench):
    # Connections that do not survive: 1 2 3 4 5 7; their largest gradients: 1 (3.0) and 2 (2.5). 1 comes back.
    made = bench(EIGHT).start(Gradient())
    hook, update = made.step()
    assert made.weights() == {0: 0.5, 1: -0.1, 2: 0, 6: -0.9}
    assert hook == "instead"
    assert (update.step, update.cost, update.replaces_step, update.samples) == (1, Cost.DENSE_GRAD, True, 0)
    (change,) = update.changes
    assert (change.layer, change.active, change.pruned, change.grown, change.candidates) == ("fc0", 4, 1, 1, 6)
    assert change.explored == 5 / 8


def test_rigl_without_regrowth_by_hand(bench):
    # 1 and 4 go and may not come back: of 2 3 5 7 the largest gradients are 2 (-2.5) and 5 (2.0).
    made = bench(EIGHT).start(Gradient(regrow=False))
    _, update = made.step()
    assert made.weights() == {0: 0.5, 2: 0, 5: 0, 6: -0.9}
    assert (update.changes[0].pruned, update.changes[0].grown, update.changes[0].candidates) == (2, 2, 4)


def test_set_without_regrowth_grows_what_was_inactive(bench):
    made = bench(EIGHT, lr=1e-6).start(Random(regrow=False), fraction=1.0)
    made.step()
    assert set(made.weights()) == {2, 3, 5, 7} - {min({2, 3, 5, 7} - set(made.weights()))} | {6}


def test_a_fresh_batch_is_as_large_as_a_batch_where_no_number_is_said(bench):
    made = bench(EIGHT).start(Gradient(), batch="fresh", samples_per_class=None)
    made.step()
    assert made.fresh == [(1, None)]


def test_a_connection_regrown_at_once_keeps_its_momentum_and_others_lose_theirs(bench):
    made = bench(EIGHT, lr=1e-6, momentum=0.9).start(
        Gradient(), schedule=Constant(fraction=0.5, end=1, interval_steps=2)
    )
    assert made.step() == (None, None)
    assert made.momentum().tolist() == pytest.approx([9, 3, 0, 0, 0.1, 0, -9, 0])
    made.step()
    assert list(made.weights()) == [0, 1, 2, 6]
    assert made.momentum().tolist() == pytest.approx([9, 3, 0, 0, 0, 0, -9, 0])  # the update took the step's place


def test_gse_by_hand(bench):
    # All four inactive are candidates: 2 3 5 7; the largest gradients: 2 (2.5) and 5 (2.0). Pruned ones stay away.
    made = bench(EIGHT).start(ALL)
    hook, update = made.step()
    assert made.weights() == {0: 0.5, 2: 0, 5: 0, 6: -0.9}
    assert (hook, update.cost, update.replaces_step) == ("instead", Cost.CANDIDATE_GRAD, True)
    (change,) = update.changes
    assert (change.active, change.pruned, change.grown, change.candidates) == (4, 2, 2, 4)
    assert change.explored == 6 / 8


def test_gse_grows_the_best_of_its_subset(bench):
    # gamma 0.5 draws two of the four: both are grown, whatever their gradients.
    counts = dict.fromkeys(combinations([2, 3, 5, 7], 2), 0)
    for seed in range(300):
        made = bench(EIGHT).start(GSE(subset=Uniform(), gamma=0.5), seed=seed)
        made.step()
        counts[tuple(sorted(set(made.weights()) - {0, 6}))] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3
    # gamma 0.75 draws three: the one of smallest gradient, |g| = 2.5 1 2 0 at 2 3 5 7, is not grown.
    grown = set()
    for seed in range(40):
        made = bench(EIGHT).start(GSE(subset=Uniform(), gamma=0.75), seed=seed)
        made.step()
        grown.add(tuple(sorted(set(made.weights()) - {0, 6})))
    assert grown == {(2, 3), (2, 5), (3, 5)}


def test_set_by_hand(bench):
    # Two of 1 2 3 4 5 7 are grown, each pair equally often; the weights move by the step first.
    moved = {0: 0.5 - 0.09, 1: -0.1 - 0.03, 4: 0.2 - 0.001, 6: -0.9 + 0.09}
    counts = dict.fromkeys(combinations([1, 2, 3, 4, 5, 7], 2), 0)
    for seed in range(900):
        made = bench(EIGHT, lr=0.01).start(Random(), seed=seed)
        hook, update = made.step()
        weights = made.weights()
        assert all(value == pytest.approx(moved.get(p, 0), abs=1e-6) for p, value in weights.items())
        grown = tuple(p for p in weights if p not in (0, 6))
        counts[grown] += 1
        (change,) = update.changes
        back = len({1, 4} & set(grown))
        assert (change.pruned, change.grown, change.candidates) == (2 - back, 2 - back, 2)
    assert (hook, update.cost, update.replaces_step) == ("after", Cost.NONE, False)
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_set_ranks_the_weights_that_the_step_left(bench):
    # The step makes 4 the largest of all, and 0 the smallest.
    gradient = [0.49, 0.4, 0, 0, -1.0, 0, 0, 0]
    made = bench((WEIGHTS, gradient), lr=1.0).start(Random(), fraction=0.25)
    made.step()
    assert {1, 4, 6} <= set(made.weights())
    assert made.weights()[4] == pytest.approx(1.2)


@pytest.mark.parametrize("criterion", [Gradient(), ALL], ids=["rigl", "gse"])
def test_an_update_takes_the_place_of_the_step(bench, criterion):
    made = bench(EIGHT).start(criterion, schedule=Constant(fraction=0.5, end=1, interval_steps=2))
    assert made.step() == (None, None)
    stepped = made.weights()
    assert stepped == {0: -0.4, 1: -0.4, 4: 0.19, 6: 0}
    made.step()  # 4 and 6 are smallest: nothing else moves
    assert {p: v for p, v in made.weights().items() if p in (0, 1)} == {0: -0.4, 1: -0.4}


def test_random_pruning_may_take_any(bench):
    taken = torch.zeros(8)
    for seed in range(200):
        made = bench(EIGHT).start(ALL, fraction=0.25, prune=PruneRandom(), seed=seed)
        made.step()
        (pruned,) = WEIGHTS.keys() - made.weights().keys()
        taken[pruned] += 1
    assert chisquare(taken[[0, 1, 4, 6]]).pvalue > 1e-3


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounding", "fraction", "replaced"),
    [("ceil", 0.3, 2), ("floor", 0.3, 1), ("ceil", 0.5, 2), ("floor", 0.5, 2), ("ceil", 0.01, 1), ("floor", 0.2, 0)],
)
def test_rounding(bench, rounding, fraction, replaced):
    made = bench(EIGHT).start(ALL, fraction=fraction, rounding=rounding)
    _, update = made.step()
    assert (update.changes[0].pruned, update.changes[0].grown) == (replaced, replaced)
    assert len(made.weights()) == 4


def test_fewer_are_pruned_where_candidates_run_out(bench):
    # One candidate (gamma 0.25 of four active): only the smallest, 1, goes.
    made = bench(EIGHT).start(GSE(subset=Uniform(), gamma=0.25), seed=3)
    _, update = made.step()
    assert WEIGHTS.keys() - made.weights().keys() == {1}
    assert (update.changes[0].pruned, update.changes[0].grown, update.changes[0].candidates) == (1, 1, 1)
    # One inactive: the same in a nearly dense layer.
    made = bench(({p: 1.0 + p for p in range(7)}, GRADIENT)).start(ALL)
    made.step()
    assert list(made.weights()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_a_dense_layer_stays_as_it_is(bench, criterion):
    made = bench(({p: 1.0 + p for p in range(8)}, [0.0] * 8)).start(criterion)
    _, update = made.step()
    assert made.weights() == {p: 1.0 + p for p in range(8)}
    assert (update.changes[0].pruned, update.changes[0].grown) == (0, 0)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_the_last_connection_of_a_layer_is_never_pruned(bench, criterion):
    made = bench(({3: 0.1}, GRADIENT)).start(criterion, fraction=1.0)
    _, update = made.step()
    assert list(made.weights()) == [3]
    assert update.changes[0].pruned == 0


@given(
    counts=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    fraction=st.floats(0, 1, exclude_min=True),
    rounding=st.sampled_from(["ceil", "floor"]),
    scope=st.sampled_from(["layer", "global"]),
    batch=st.sampled_from(["current", "fresh"]),
    grow=st.sampled_from(list(CRITERIA.values())),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_budget_is_exact_after_every_update(random_bench, counts, fraction, rounding, scope, batch, grow, seed):
    made = random_bench(counts, seed=seed).start(
        grow, fraction=fraction, rounding=rounding, scope=scope, batch=batch, seed=seed
    )
    for _ in range(3):
        before = [set(layer.topology.positions.tolist()) for layer in made.layers]
        explored = [layer.explored() for layer in made.layers]
        _, update = made.step()
        after = [set(layer.topology.positions.tolist()) for layer in made.layers]
        assert sum(map(len, after)) == sum(counts)
        if scope == "layer":
            assert list(map(len, after)) == counts
        most = (math.ceil if rounding == "ceil" else math.floor)(fraction * sum(map(len, before)))
        wanted = 0
        for layer, old, new, share, change in zip(made.layers, before, after, explored, update.changes, strict=True):
            assert (change.pruned, change.grown, change.active) == (len(old - new), len(new - old), len(new))
            assert layer.topology.count == len(new) >= 1
            assert layer.mask.flatten().nonzero().flatten().tolist() == sorted(new)
            assert not layer.module.weight[~layer.mask].any()
            assert change.explored == layer.explored() >= share
            wanted += (math.ceil if rounding == "ceil" else math.floor)(fraction * len(old))
        assert sum(c.pruned for c in update.changes) <= (wanted if scope == "layer" else most)


@given(
    count=st.integers(1, 23),
    fraction=st.floats(0, 1, exclude_min=True),
    rounding=st.sampled_from(["ceil", "floor"]),
    rigl=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_layers_are_rewired_as_by_brute_force(random_bench, count, fraction, rounding, rigl, seed):
    made = random_bench([count], seed=seed).start(Gradient() if rigl else ALL, fraction=fraction, rounding=rounding)
    weight = made.layers[0].module.weight.detach().flatten().clone()
    gradient = made.gradients[0].flatten().abs().tolist()
    active = made.layers[0].topology.positions.tolist()
    k = min((math.ceil if rounding == "ceil" else math.floor)(fraction * count), count - 1)
    if not rigl:
        k = min(k, 24 - count)
    pruned = sorted(active, key=lambda p: abs(weight[p]))[:k]
    survivors = set(active) - set(pruned)
    eligible = set(range(24)) - (survivors if rigl else set(active))
    grown = sorted(eligible, key=lambda p: -gradient[p])[:k]
    made.step()
    expected = torch.zeros(24)
    for position in survivors | (set(grown) & set(pruned)):
        expected[position] = weight[position]
    assert set(made.layers[0].topology.positions.tolist()) == survivors | set(grown)
    assert torch.equal(made.layers[0].module.weight.detach().flatten(), expected)


# --- scope ------------------------------------------------------------------------------------------------------------

# Two layers of four. All four active weights compete: 0 and 1 of the first are smallest.
FIRST = ({0: 0.1, 1: 0.2, 2: 0.3}, [0, 0, 0, 1.0])
SECOND = ({0: 0.9}, [0, 3.0, 2.0, 0.5])


def test_global_scope_by_hand(bench):
    made = bench(FIRST, SECOND, shape=(2, 2)).start(ALL, scope="global")
    _, update = made.step()
    assert made.weights(0) == {2: 0.3}
    assert made.weights(1) == {0: 0.9, 1: 0, 2: 0}
    assert [(c.active, c.pruned, c.grown) for c in update.changes] == [(1, 2, 0), (3, 0, 2)]


def test_layer_scope_by_hand(bench):
    made = bench(FIRST, SECOND, shape=(2, 2)).start(ALL)
    made.step()
    # ceil(1.5) = 2 of the first are due, but one candidate is there; the second keeps its last.
    assert made.weights(0) == {1: 0.2, 2: 0.3, 3: 0}
    assert made.weights(1) == {0: 0.9}


def test_global_scope_leaves_every_layer_its_best(bench):
    made = bench(FIRST, SECOND, shape=(2, 2)).start(ALL, scope="global", fraction=1.0)
    made.step()
    assert made.weights(0) == {2: 0.3}
    assert made.weights(1) == {0: 0.9, 1: 0, 2: 0}


def test_global_scope_empties_no_layer_of_small_weights(bench):
    made = bench(FIRST, ({0: 0.05}, [0.0] * 4), shape=(2, 2)).start(ALL, scope="global")
    made.step()
    assert 0 in made.weights(1)
    assert 2 in made.weights(0)
    assert 0 not in made.weights(0)


def test_global_random_growth_is_in_proportion_to_the_inactive(bench):
    # Of the first layer's 12 connections 11 may grow, its pruned one among them, and one of the second's; one does.
    large = ({0: 0.1, 1: 0.5}, [0.0] * 12)
    small = ({p: 1.0 for p in range(11)}, [0.0] * 12)
    first = 0
    for seed in range(600):
        made = bench(large, small, shape=(3, 4)).start(
            Random(), scope="global", fraction=0.05, rounding="ceil", seed=seed
        )
        made.step()
        assert len(made.weights(0)) + len(made.weights(1)) == 13
        first += len(made.weights(0)) == 2
    assert chisquare([first, 600 - first], [600 * 11 / 12, 600 / 12]).pvalue > 1e-3


# --- when, and on which batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", [Gradient(), ALL], ids=["rigl", "gse"])
def test_a_fresh_batch_updates_before_the_step_which_is_taken_too(bench, criterion):
    made = bench(EIGHT, lr=0.01).start(criterion, batch="fresh", samples_per_class=3)
    hook, update = made.step()
    assert made.fresh == [(1, 30)]
    assert (hook, update.replaces_step, update.samples) == ("before", False, 30)
    assert made.weights()[0] == pytest.approx(0.5 - 0.09)
    assert made.weights()[2] == pytest.approx(0.025)  # grown at zero, then trained


def test_growth_without_gradients_takes_no_fresh_batch(bench):
    made = bench(EIGHT).start(Random(), batch="fresh")
    hook, update = made.step()
    assert made.fresh == []
    assert (hook, update.replaces_step, update.samples) == ("after", False, 0)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
@pytest.mark.parametrize("batch", ["current", "fresh"])
def test_updates_come_at_the_steps_of_the_schedule_only(random_bench, criterion, batch):
    made = random_bench([8, 12]).start(
        criterion, batch=batch, schedule=Cosine(fraction=0.3, end=0.5, interval_steps=5), total=40
    )
    found = []
    for _ in range(40):
        assert made.procedure.updates_at(made.steps + 1) == (made.steps + 1 in (5, 10, 15))  # at 20 the fraction is 0
        _, update = made.step()
        found += [update.step] if update else []
        assert not any(layer.module._forward_hooks for layer in made.layers)
    assert found == [5, 10, 15]


# --- determinism ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_the_seed_decides_whatever_else_is_drawn(random_bench, criterion, scope):
    def positions(seed, disturb=False):
        made = random_bench([8, 12]).start(criterion, scope=scope, seed=seed, prune=PruneRandom())
        for step in range(4):
            if disturb:
                torch.manual_seed(step)
                torch.rand(step + 1)
            made.step()
        return [layer.topology.positions.tolist() for layer in made.layers]

    assert positions(0) == positions(0, disturb=True)
    assert positions(0) != positions(1)


def test_a_step_draws_the_same_whether_or_not_earlier_ones_updated(random_bench):
    def grown(interval):
        made = random_bench([8]).start(
            Random(), schedule=Constant(fraction=1e-9, end=1, interval_steps=interval), rounding="floor"
        )
        for layer in made.layers:
            layer.set_values(torch.ones(8))
        made.step(), made.step(), made.step()
        made.start(Random(), schedule=Constant(fraction=0.5, end=1, interval_steps=4))
        made.step()
        return made.layers[0].topology.positions.tolist()

    assert grown(1) == grown(3) == grown(50)


@pytest.mark.parametrize("prune", [False, True], ids=["grow", "prune"])
def test_steps_draw_apart(bench, prune):
    left = set()
    for step in range(10):
        made = bench(EIGHT).start(ALL if prune else Random(), prune=PruneRandom() if prune else None)
        made.steps = step
        made.step()
        left.add(tuple(made.weights()))
    assert len(left) > 2


def test_layers_draw_apart(bench):
    made = bench(EIGHT, EIGHT, EIGHT).start(Random(), seed=1)
    made.step()
    assert len({tuple(made.weights(i)) for i in range(3)}) > 1
