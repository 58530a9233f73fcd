"""Sparse momentum: what is followed, what goes where, what it costs."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_setting import setting

from dstrun.config.composition import compose
from dstrun.method.dynamic.snfs import SNFS
from dstrun.prune.magnitude import Magnitude
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan_flops
from dstrun.schedule.constant import Constant
from dstrun.system.trouble import ConfigError

# Eight weights: half active. At fraction 0.5 the two of smallest magnitude, 1 and 4, are pruned.
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
#        0     1    2     3    4     5    6    7
FIRST = [3.0, -3.0, -5.0, 4.0, 3.0, 2.0, 3.0, 1.0]
SECOND = [1.0, 1.0, 0.5, -2.0, -1.0, 0.0, 1.0, 0.1]


def start(made, *, fraction=0.5, interval=1, total=100, seed=0, **method):
    """Let a bench train by sparse momentum."""
    schedule = Constant(fraction=fraction, end=1, interval_steps=interval)
    made.procedure = SNFS(**method).procedure(
        setting(made.layers, prune=Magnitude(), schedule=schedule, total_steps=total, seed=seed)
    )
    return made


def two(bench, **how):
    return start(bench((WEIGHTS, FIRST), (WEIGHTS, SECOND), lr=1e-9), **how)


def test_by_hand(bench):
    # Mean |M| over active ones is as 3 to 1: of the 4 that go, 3 come to the first layer and 1 to the second.
    # First: |g| of 1 2 3 4 5 7 is 3 5 4 3 2 1: 2, 3 and 1, which comes back as it was. Second: 3 (2.0).
    made = two(bench)
    hook, update = made.step()
    assert made.weights(0) == {0: 0.5, 1: -0.1, 2: 0, 3: 0, 6: -0.9}
    assert made.weights(1) == {0: 0.5, 3: 0, 6: -0.9}
    assert (hook, update.replaces_step, update.samples) == ("after", False, 0)
    assert [(c.active, c.pruned, c.grown, c.candidates) for c in update.changes] == [(5, 1, 2, 6), (3, 2, 1, 6)]


def test_without_redistribution_every_layer_keeps_its_count(bench):
    made = two(bench, redistribution=False)
    made.step()
    assert list(made.weights(0)) == [0, 2, 3, 6]
    assert list(made.weights(1)) == [0, 1, 3, 6]  # 3 (2.0), and of 1 and 4 (both 1.0) the first


def test_momentum_follows_every_gradient(bench):
    # M_1 = 0.1 g, M_2 = 0.09 g + 0.1 g': at 5 the second gradient outweighs what 2 has gathered, at 7 it does not.
    made = two(bench, interval=2, redistribution=False, fraction=0.25)
    assert made.step() == (None, None)
    made.gradients[0] = torch.tensor([0, 0, 0, 0, 0, 5.0, 0, -3.2]).view(2, 4)
    made.step()
    expected = [0.09 * g for g in FIRST]
    expected[5] += 0.5
    expected[7] -= 0.32
    assert made.procedure.mean[0].tolist() == pytest.approx(expected)
    assert list(made.weights(0)) == [0, 4, 5, 6]  # |M|: 0.68 at 5, 0.45 at 2, 0.23 at 7


def test_an_overflow_leaves_no_trace(bench):
    made = two(bench)
    made.backward()
    made.layers[0].module.weight.grad[0, 1] = float("inf")
    made.procedure.after_backward(1)
    assert made.procedure.mean[0][:3].tolist() == pytest.approx([0.3, 0, -0.5])


def test_a_crowded_layer_that_grows_is_spared(bench):
    # Nine of ten active and the larger momentum: it loses ceil(0.1 x 9) = 1 instead of 5.
    crowded = ({p: 1.0 + p for p in range(9)}, [3.0] * 10)
    other = ({0: 1.0, 1: 2.0}, [1.0] * 10)
    made = start(bench(crowded, other, shape=(2, 5), lr=1e-9))
    made.backward()
    made.procedure.after_backward(1)
    need = made.procedure.need()
    assert need == pytest.approx([0.75, 0.25])
    assert made.procedure.removed(0.5, need) == [1, 1]
    assert made.procedure.removed(0.05, need) == [1, 1]
    assert made.procedure.removed(0.5, [0.4, 0.6]) == [5, 1]
    assert start(made, redistribution=False).procedure.removed(0.5, need) == [5, 1]


@given(
    counts=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    fraction=st.floats(0, 1, exclude_min=True),
    redistribution=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_budget_is_exact_after_every_update(random_bench, counts, fraction, redistribution, seed):
    made = start(random_bench(counts, seed=seed), fraction=fraction, redistribution=redistribution, seed=seed)
    for _ in range(3):
        before = [set(layer.topology.positions.tolist()) for layer in made.layers]
        _, update = made.step()
        after = [set(layer.topology.positions.tolist()) for layer in made.layers]
        assert sum(map(len, after)) == sum(counts)
        if not redistribution:
            assert list(map(len, after)) == counts
        for old, new, change, layer in zip(before, after, update.changes, made.layers, strict=True):
            assert (change.pruned, change.grown, change.active) == (len(old - new), len(new - old), len(new))
            assert new
            assert not layer.module.weight[~layer.mask].any()


# --- the whole run ----------------------------------------------------------------------------------------------------

SMALL = ["dataset=digits", "model=resnet20", "model.width=0.25", "epochs=2", "batch_size=256", "threads=1"]


def trained(*words):
    made = compose([*SMALL, "method=snfs", "sparsity=0.8", *words])
    training = assemble(made, torch.device("cpu"))
    training.model.train()
    while training.step < training.total_steps:
        training.take_step()
    return made, training


def test_every_step_costs_two_sparse_products_and_a_dense_one():
    made, training = trained("method.redistribution=false")
    cost, counts = training.flops.cost, [layer.count for layer in training.layers]
    assert training.updates > 0
    assert training.flops.train == training.flops.samples * (2 * cost.forward(counts) + cost.forward())
    blueprint = Blueprint(made)
    planned = plan_flops(blueprint)
    assert blueprint.counts == counts
    assert (planned["train"], planned["updates"]) == (training.flops.train, training.updates)


def test_connections_move_between_layers():
    _, training = trained()
    start_counts = (
        compose([*SMALL, "method=snfs", "sparsity=0.8"])
        .build("allocation")
        .counts([layer.topology.shape for layer in training.layers], 0.8)
    )
    assert [layer.count for layer in training.layers] != start_counts
    assert sum(layer.count for layer in training.layers) == sum(start_counts)


def test_adamw_has_the_same_momentum():
    _, training = trained("optimizer=adamw")
    assert training.updates > 0
    assert all(mean.isfinite().all() and mean.any() for mean in training.procedure.mean)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("backend=sparse", "backend=sparse makes no sense with method=snfs, which tracks the gradient of "
        "every connection at every step"),
        ("scope=global", "scope=global makes no sense with method=snfs, which prunes a share of each layer and grows "
         "by momentum"),
        ("grow=random", "grow=random makes no sense with method=snfs, which prunes a share of each layer and grows "
         "by momentum"),
        ("sparsity=0", "sparsity=0 makes no sense with method=snfs: no connection is left to grow"),
        ("method.momentum=1", "method.momentum=1 must be in [0, 1)"),
    ],
)  # fmt: skip
def test_refusals(words, message):
    with pytest.raises(ConfigError) as error:
        compose(["method=snfs", *words.split()])
    assert str(error.value) == message
