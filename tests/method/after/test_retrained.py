"""The course of train, prune, retrain: when, how far, at which learning rate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_setting import setting
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.after.magnitude import MagnitudePruning
from dstrun.method.rounds import survivors
from dstrun.prune.magnitude import Magnitude
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError

WORDS = ["dataset=digits", "model=mlp", "batch_size=256", "threads=1", "optimizer.lr=0.05"]


def eight_weights() -> nn.Linear:
    """Weights by position: the largest |w| are 1, 6, 4 and 7, in this order."""
    module = nn.Linear(4, 2, bias=False)
    module.weight.data = torch.tensor([[0.1, -0.8, 0.3, 0.05], [-0.6, 0.2, 0.7, -0.4]])
    return module


def test_eight_weights_in_two_rounds() -> None:
    """From 8 to 2: the first round leaves 8 (2 / 8)^(1/2) = 4. An epoch is 5 steps, a round one epoch."""
    layers = masked.wrap(nn.Sequential(eight_weights()), torch.device("cpu"))
    method = MagnitudePruning(rounds=2, retrain_share=0.5)
    run = {"prune": Magnitude(), "budget": 2, "nominal_steps": 10, "steps_per_epoch": 5, "total_steps": 20}
    procedure = method.procedure(setting(layers, **run))
    active = {}
    for step in range(1, 21):
        update = procedure.before_step(step)
        assert procedure.updates_at(step) == (update is not None)
        if update is not None:
            (change,) = update.changes
            active[update.step] = layers[0].topology.positions.tolist()
            assert (change.active, change.pruned, change.grown) == (len(active[step]), {11: 4, 16: 2}[step], 0)
            assert (update.samples, update.replaces_step) == (0, False)
    assert active == {11: [1, 4, 6, 7], 16: [1, 6]}


def test_in_each_layer_a_round_goes_the_same_share_of_the_way() -> None:
    """Layers of 8 to 2 and to 8: 4 and 8 after the first of two rounds."""
    layers = masked.wrap(nn.Sequential(eight_weights(), nn.Linear(2, 4, bias=False)), torch.device("cpu"))
    run = {"prune": Magnitude(), "budget": 10, "counts": [2, 8], "nominal_steps": 10, "total_steps": 30}
    procedure = MagnitudePruning(rounds=2, retrain_share=1.0).procedure(setting(layers, **run))
    counts = []
    for step in range(1, 31):
        if procedure.before_step(step) is not None:
            counts.append([layer.count for layer in layers])
    assert counts == [[4, 8], [2, 8]]


@pytest.mark.parametrize(
    ("retrain", "rates"),
    [("rewind", [*range(10), 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8, 9]), ("finetune", [*range(10), *[9] * 12])],
)
def test_learning_rate_of_retraining(retrain: str, rates: list[int]) -> None:
    method = MagnitudePruning(rounds=2, retrain=retrain, retrain_share=0.6)
    run = {"nominal_steps": 10, "steps_per_epoch": 1, "total_steps": 22}
    procedure = method.procedure(setting(masked.wrap(nn.Sequential(eight_weights()), torch.device("cpu")), **run))
    assert [procedure.rate_at(step, 22) for step in range(22)] == [(rate, 10) for rate in rates]


@pytest.mark.parametrize(("epochs", "share", "rounds", "whole"), [(200, 0.6, 1, 320), (3, 0.1, 2, 5), (1, 1.0, 3, 4)])
def test_a_round_takes_whole_epochs_and_at_least_one(epochs: int, share: float, rounds: int, whole: int) -> None:
    assert MagnitudePruning(rounds=rounds, retrain_share=share).epochs(epochs, 0.9) == whole


@given(st.integers(1, 10**7), st.data(), st.integers(1, 30))
def test_survivors_fall_to_the_target_exactly(size: int, data: st.DataObject, rounds: int) -> None:
    target = data.draw(st.integers(1, size))
    left = [survivors(size, target, r / rounds) for r in range(rounds + 1)]
    assert (left[0], left[-1]) == (size, target)
    assert left == sorted(left, reverse=True)


def test_the_dense_phase_is_a_dense_run_and_its_last_epoch_is_evaluated_before_pruning() -> None:
    dense = assemble(compose([*WORDS, "method=dense", "epochs=2"]), torch.device("cpu"))
    pruned = assemble(compose([*WORDS, "method=magnitude", "epochs=2"]), torch.device("cpu"))
    assert pruned.total_steps == dense.total_steps + pruned.data.steps_per_epoch == 1.5 * dense.total_steps
    for training in (dense, pruned):
        training.model.train()
        for _ in range(dense.total_steps):
            assert training.take_step() == []
    assert dense.evaluate() == pruned.evaluate()
    (update,) = pruned.take_step()
    assert update.step == dense.total_steps + 1
    assert sum(pruned.active()) == round(0.1 * sum(pruned.sizes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.rounds=0"], "method.rounds=0 must be at least 1"),
        (["method.retrain_share=0"], "method.retrain_share=0 must be in (0, 1]"),
        (
            ["method.retrain=rewnd"],
            "method.retrain=rewnd is not known: choose rewind, finetune (did you mean rewind?)",
        ),
        (["scope=layer"], "allocation=null makes no sense with method=magnitude scope=layer, which needs one"),
        (["grow=random"], "grow=random makes no sense with method=magnitude, which prunes between trainings"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(["method=magnitude", *words])
    assert str(error.value) == message
