"""Lottery tickets: levels, what survives, and that everything goes back to step k bit for bit."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_setting import setting
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.layer.topology import contains
from dstrun.method.lottery.lth import LTH
from dstrun.method.rounds import survivors
from dstrun.prune.magnitude import Magnitude
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

WORDS = ["dataset=digits", "model=resnet20", "model.width=0.25", "batch_size=256", "threads=1", "optimizer.lr=0.05"]
WORDS += ["method=lth", "sparsity=0.8", "method.levels=2"]


@pytest.mark.parametrize(("sparsity", "levels"), [(0.9, 11), (0.95, 14), (0.98, 18), (0.36, 2), (0.2, 1), (0.1, 1)])
def test_as_many_levels_of_twenty_percent_as_are_needed(sparsity: float, levels: int) -> None:
    shares = LTH().shares(sparsity)
    assert len(shares) == levels
    left = [survivors(100_000, round((1 - sparsity) * 100_000), share) for share in shares]
    assert left[:-1] == [round(0.8**level * 100_000) for level in range(1, levels)]
    assert left[-1] == round((1 - sparsity) * 100_000)


def test_levels_by_number_and_by_sparsity() -> None:
    assert LTH(levels=4).shares(0.9) == [0.25, 0.5, 0.75, 1]
    ends = LTH(sparsities=(0.5, 0.75, 0.9, 0.95)).shares(0.9)
    assert [survivors(1000, 100, share) for share in ends] == [500, 250, 100]
    assert LTH().shares(0) == []


@given(st.floats(0.01, 0.999), st.floats(0.01, 0.95), st.integers(1, 40))
def test_levels_rise_to_one(sparsity: float, prune_share: float, levels: int) -> None:
    for method in (LTH(prune_share=prune_share), LTH(levels=levels), LTH(sparsities=(0.3, 0.6, 0.99))):
        shares = method.shares(sparsity)
        assert shares == sorted(set(shares))
        assert shares[0] > 0
        assert shares[-1] == 1


@pytest.mark.parametrize(
    ("epochs", "rewind", "level", "whole"), [(160, 0, 160, 320), (160, 0.03, 155, 315), (1, 0.9, 1, 2), (4, 0.5, 2, 6)]
)
def test_a_level_is_a_training_less_the_epochs_before_step_k(
    epochs: int, rewind: float, level: int, whole: int
) -> None:
    method = LTH(levels=1, rewind=rewind)
    assert method.round_epochs(epochs) == level
    assert method.epochs(epochs, 0.9) == whole


def test_eight_weights_in_two_levels() -> None:
    """From 8 to 4 to 2, back to step k = 2 of 4: w_k, less what training made small."""
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    (layer,) = masked.wrap(net, torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    layer.optimizer = optimizer
    early = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    run = {"prune": Magnitude(), "budget": 2, "nominal_steps": 4, "steps_per_epoch": 1, "total_steps": 8}
    method = LTH(levels=2, rewind=0.5)
    procedure = method.procedure(setting([layer], model=net, optimizer=optimizer, **run))
    trained = {
        4: [0.1, -0.8, 0.3, 0.05, -0.6, 0.2, 0.7, -0.4],  # keeps 1, 4, 6, 7
        6: [9.0, 0.5, 9.0, 9.0, 0.1, 9.0, -0.2, 0.3],  # of which 1 and 7 remain; inactive ones are 0 in truth
    }
    found = []
    for step in range(1, 9):
        if step == 3:
            with torch.no_grad():
                net[0].weight.copy_(early)
            optimizer.state[net[0].weight]["momentum_buffer"] = early / 10
        update = procedure.before_step(step)
        if update is not None:
            found.append((step, net[0].weight.flatten().tolist(), dict(optimizer.state)))
            assert (update.changes[0].active, update.changes[0].pruned) == {5: (4, 4), 7: (2, 2)}[step]
        assert procedure.updates_at(step) == (update is not None)
        if step in trained:
            layer.set_values(torch.tensor(trained[step])[layer.topology.positions])
            optimizer.state[net[0].weight]["momentum_buffer"] = torch.full((2, 4), 99.0)
    assert found == [
        (5, [0, 2, 0, 0, 5, 0, 7, 8], {}),
        (7, [0, 2, 0, 0, 0, 0, 0, 8], {}),
    ]
    assert [procedure.rate_at(step, 8) for step in range(8)] == [(s, 4) for s in (0, 1, 2, 3, 2, 3, 2, 3)]


def copied(state):
    """A deep copy through a file, as a checkpoint makes one."""
    saved = io.BytesIO()
    torch.save(state, saved)
    saved.seek(0)
    return torch.load(saved, weights_only=True)


def start(*words: str) -> Training:
    training = assemble(compose([*WORDS, *words]), torch.device("cpu"))
    training.model.train()
    return training


def until(training: Training, step: int) -> Training:
    while training.step < step:
        training.take_step()
    return training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("epochs", "rewind"), [(1, 0.0), (2, 0.5)])
def test_a_level_starts_from_step_k_bit_for_bit(epochs: int, rewind: float, optimizer: str) -> None:
    training = start(f"epochs={epochs}", f"method.rewind={rewind}", f"optimizer={optimizer}", "optimizer.lr=0.01")
    k = int(rewind * epochs) * 5
    until(training, k)
    model = copied(training.model.state_dict())
    weights = {f"{layer.name}.weight": layer for layer in training.layers}
    before_step, levels = training.procedure.before_step, []

    def check(step: int):
        """After pruning: the network is that of step k on the survivors, 0 elsewhere; the optimizer starts anew."""
        update = before_step(step)
        if update is None:
            return None
        levels.append({name: layer.topology.positions.clone() for name, layer in weights.items()})
        for name, value in training.model.state_dict().items():
            expected = model[name] * weights[name].mask if name in weights else model[name]
            assert torch.equal(value, expected), name
        assert training.optimizer.state_dict()["state"] == {}
        assert training.optimizer.param_groups[0]["lr"] == training.rate.lr_at(k, training.nominal_steps)
        return update

    training.procedure.before_step = check  # type: ignore[method-assign]
    until(training, training.total_steps)
    assert training.total_steps == 5 * epochs + 2 * (5 * epochs - k)
    assert len(levels) == 2
    assert sum(x.numel() for x in levels[0].values()) == survivors(sum(training.sizes), sum(training.active()), 0.5)
    for name, positions in levels[1].items():
        assert contains(levels[0][name], positions).all()
    assert sum(training.active()) == round(0.2 * sum(training.sizes))


def test_stopped_at_step_k_at_the_ends_of_levels_and_inside_it_ends_the_same() -> None:
    words = ("epochs=2", "method.rewind=0.5")
    whole = until(start(*words), 20)
    stopped = start(*words)
    assert whole.total_steps == stopped.total_steps == 20
    for step in (3, 5, 6, 10, 11, 13, 15, 16):
        state = copied(until(stopped, step).state())
        stopped = start(*words)
        stopped.load_state(state)
    until(stopped, 20)
    assert_same(whole.state(), stopped.state(), ("clock", "memory", "last"))


def assert_same(one, other, skip: tuple[str, ...] = ()) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key not in skip:
                assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_random_pruning_is_the_control() -> None:
    training = until(start("epochs=1", "prune=random"), 15)
    assert sum(training.active()) == round(0.2 * sum(training.sizes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["method.levels=3", "method.sparsities=[0.5]"],
            "method.levels and method.sparsities both set the levels: set one of them",
        ),
        (["method.sparsities=[0.9,0.5]"], "method.sparsities=[0.9, 0.5] must increase"),
        (["method.rewind=1"], "method.rewind=1 must be in [0, 1)"),
        (["schedule=cubic"], "schedule=cubic makes no sense with method=lth, which prunes between trainings"),
        (["backend=sparse"], "backend=sparse makes no sense with method=lth, which starts dense"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(["method=lth", *words])
    assert str(error.value) == message
