import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_setting import setting
from torch.nn import functional

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.dynamic.deepr import DeepR
from dstrun.system.stream import generator
from dstrun.system.trouble import ConfigError

# Eight weights, four of them active; at lr 0.1 the step takes position 0 from 0.5 to -0.4, and no other past zero.
#           0     1     2     3     4     5     6     7
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
GRADIENT = [9.0, 3.0, 1.0, 1.0, 0.1, 1.0, -8.0, 1.0]
EIGHT = (WEIGHTS, GRADIENT)
COLD = {"l1": 0.0, "temperatures": (0.0,), "temperature_changes": ()}


def start(bench, *, seed=0, scope="layer", total=100, **option):
    made = DeepR(**(COLD | option))
    given = {"seed": seed, "scope": scope, "total_steps": total, "optimizer": bench.optimizer}
    bench.procedure = made.procedure(setting(bench.layers, **given))
    return bench


def by_position(layer, numbers):
    """Return {position: number} of a layer's active connections."""
    return dict(zip(layer.topology.positions.tolist(), numbers.tolist(), strict=True))


def signs(bench):
    return by_position(bench.layers[0], bench.procedure.signs[0])


# --- eight weights, by hand -------------------------------------------------------------------------------------------


def test_who_changes_its_sign_goes_and_another_comes_at_zero(bench):
    made = start(bench(EIGHT))
    assert signs(made) == {0: 1, 1: -1, 4: 1, 6: -1}
    made.step()
    weights = made.weights()
    (new,) = weights.keys() - WEIGHTS.keys()
    assert new in {2, 3, 5, 7}
    assert weights == {1: -0.4, 4: 0.19, 6: -0.1, new: 0.0}
    assert signs(made) == {1: -1, 4: 1, 6: -1, new: signs(made)[new]}
    assert signs(made)[new] in (1, -1)


def test_a_grown_connection_of_the_wrong_sign_goes_at_once(bench):
    """The gradient is 1 wherever a connection can come: it moves to -0.1, which only a negative one may."""
    stayed = {True: 0, False: 0}
    for seed in range(20):
        made = start(bench(EIGHT), seed=seed)
        made.step()
        ((new, sign),) = [(p, s) for p, s in signs(made).items() if p not in WEIGHTS]
        made.gradients[0].view(-1)[[1, 4, 6]] = 0
        made.step()
        assert (new in made.weights()) == (sign == -1)
        stayed[sign == -1] += 1
    assert min(stayed.values()) >= 3


def test_a_sign_can_be_that_of_the_first_move(bench):
    for seed in range(5):
        made = start(bench(EIGHT), seed=seed, signs="first")
        made.step()
        ((new, sign),) = [(p, s) for p, s in signs(made).items() if p not in WEIGHTS]
        assert sign == 0
        made.gradients[0].view(-1)[[1, 4, 6]] = 0
        made.step()
        assert made.weights()[new] == -0.1
        assert signs(made)[new] == -1
        made.gradients[0].view(-1)[new] = -2.0
        made.step()
        assert new not in made.weights()


def test_at_zero_temperature_without_l1_it_is_sgd_with_a_constraint(bench):
    """As long as no sign changes, to the bit; momentum included."""
    gradient = [0.1, 0.1, 0, 0, -0.1, 0, 0.2, 0]
    made, plain = start(bench((WEIGHTS, gradient), momentum=0.9)), bench((WEIGHTS, gradient), momentum=0.9)
    weight = plain.layers[0].module.weight
    for _ in range(5):
        made.step()
        plain.backward()
        plain.layers[0].confine_gradient()
        plain.optimizer.step()
        plain.optimizer.zero_grad()
        assert torch.equal(made.layers[0].module.weight, weight)
    assert made.weights().keys() == WEIGHTS.keys()


@pytest.mark.parametrize("noise", ["weights", "gradients"])
def test_noise_and_l1_as_the_papers_write_them(bench, noise):
    """Without a gradient: theta falls by eta l1 and moves by sqrt(2 eta T) nu, or eta sqrt(2 x 0.01 T) nu."""
    option = {"noise": noise, "l1": 0.02, "temperatures": (3e-4,), "seed": 5}
    made = start(bench((WEIGHTS, [0.0] * 8), lr=0.1), **option)
    made.step()
    nu = torch.randn(4, generator=generator(5, "noise", 1, 0))
    spread = {"weights": math.sqrt(2 * 0.1 * 3e-4), "gradients": 0.1 * math.sqrt(2 * 0.01 * 3e-4)}[noise]
    before, sign = torch.tensor(list(WEIGHTS.values())), torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(made.layers[0].values(), before - 0.1 * 0.02 * sign - spread * nu)


def test_momentum_of_a_grown_connection_starts_at_zero(bench):
    made = start(bench(EIGHT, momentum=0.9))
    made.step()
    (new,) = made.weights().keys() - WEIGHTS.keys()
    assert made.momentum()[new] == 0
    assert made.momentum()[0] == 0
    assert made.momentum()[1] == 3


def test_a_dense_layer_is_an_ordinary_one(bench):
    dense = {p: 0.5 for p in range(8)}
    made = start(bench((dense, [9.0] * 8)), l1=1.0, temperatures=(1.0,), noise="weights")
    made.step()
    assert made.weights() == dict.fromkeys(range(8), -0.4)
    assert made.procedure.signs == {}


def test_where_all_others_are_active_what_was_pruned_returns_at_zero(bench):
    """Three go and one is inactive: three of these four come."""
    weights = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.9, 4: 0.9, 5: 0.9, 6: 0.9}
    made = start(bench((weights, [2.0] * 8)))
    made.step()
    after = made.weights()
    assert len(after) == 7
    assert {p: w for p, w in after.items() if w} == {3: 0.7, 4: 0.7, 5: 0.7, 6: 0.7}
    assert sum(made.procedure.replaced[0]) in (0, 2)


def test_one_pool_of_all_layers_moves_connections_but_empties_none(bench):
    alone = ({2: 0.1}, [5.0] * 8)
    moved = set()
    for seed in range(30):
        made = start(bench(EIGHT, alone), scope="global", seed=seed)
        made.step()
        assert [layer.count for layer in made.layers] in ([4, 1], [3, 2])
        assert made.weights(1)[2] == 0  # its only one: starts again
        moved.add(made.layers[1].count)
    assert moved == {1, 2}


def test_one_pool_in_which_nearly_all_go_and_few_others_are_left(bench):
    """Of each layer all seven go but one, which starts again; of the fourteen dormant ones twelve come."""
    weak = (dict.fromkeys(range(7), 0.1), [2.0] * 8)
    for seed in range(10):
        made = start(bench(weak, weak), scope="global", seed=seed)
        made.step()
        assert sum(layer.count for layer in made.layers) == 14
        assert not any(made.weights(0).values())


# --- laws -------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scope=st.sampled_from(["layer", "global"]),
    sign=st.sampled_from(["random", "first"]),
    noise=st.sampled_from(["gradients", "weights"]),
)
def test_after_every_step_counts_are_exact_and_no_weight_has_the_wrong_sign(seed, scope, sign, noise):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(8, 10), torch.nn.Linear(10, 6), torch.nn.Linear(6, 3))
    layers = masked.sparsify(net, [30, 50, 6], seed=seed)
    optimizer = torch.optim.SGD(net.parameters(), 0.5, momentum=0.5)
    for layer in layers:
        layer.optimizer = optimizer
    option = DeepR(noise=noise, signs=sign, temperatures=(1e-3,), temperature_changes=(), l1=1e-3, end=1.0)
    procedure = option.procedure(setting(layers, seed=seed, scope=scope, total_steps=12, optimizer=optimizer))
    gone, came, told = 0, 0, [0, 0]
    for step in range(1, 13):
        before = [by_position(x, procedure.signs[i]) for i, x in enumerate(layers)]
        functional.cross_entropy(net(torch.randn(4, 8)), torch.tensor([0, 1, 2, 0])).backward()
        procedure.after_backward(step)
        for layer in layers:
            layer.confine_gradient()
        optimizer.step()
        stepped = [layer.weight.detach().flatten().clone() for layer in layers]
        update = procedure.after_step(step)
        optimizer.zero_grad()
        assert sum(layer.count for layer in layers) == 86
        assert scope == "global" or [layer.count for layer in layers] == [30, 50, 6]
        for index, layer in enumerate(layers):
            old, new = before[index], by_position(layer, procedure.signs[index])
            weights = by_position(layer, layer.values())
            assert all(weights[p] * new[p] >= 0 for p in new)
            assert all(new[p] == old[p] for p in old.keys() & new.keys() if old[p] and weights[p])
            assert all(weights[p] == 0 for p in new.keys() - old.keys())
            if noise == "gradients":
                assert all(stepped[index][p] * old[p] < 0 for p in old.keys() - new.keys())
            gone, came = gone + len(old.keys() - new.keys()), came + len(new.keys() - old.keys())
            assert layer.count >= 1
        assert (update is not None) == procedure.updates_at(step)
        if update:
            told = [told[0] + sum(c.pruned for c in update.changes), told[1] + sum(c.grown for c in update.changes)]
    assert told == [gone, came]
    assert gone == came > 0
    assert procedure.updates_at(12)


def test_signs_of_what_grows_are_as_often_positive_as_negative():
    procedure = DeepR().procedure(setting())
    fresh = procedure._fresh(1, 0, 10_000)
    assert set(fresh.tolist()) == {1, -1}
    assert abs(fresh.float().mean()) < 0.05


def test_it_continues_from_a_checkpoint_with_signs_and_counts(bench):
    made = start(bench(EIGHT), signs="first")
    made.step()
    saved = copy.deepcopy(made.procedure.state())
    other = start(bench(EIGHT), signs="first").procedure
    other.load_state(saved)
    assert torch.equal(other.signs[0], made.procedure.signs[0])
    assert other.replaced == [(1, 1)]


# --- when -------------------------------------------------------------------------------------------------------------


def test_after_its_end_it_trains_as_static(bench):
    made = start(bench(EIGHT), total=10, end=0.2, l1=1.0, temperatures=(1.0,))
    for _ in range(2):
        made.step()
    kept, before = made.weights().keys(), made.layers[0].values()
    assert made.step() == (None, None)
    assert made.weights().keys() == kept
    torch.testing.assert_close(made.layers[0].values(), before - 0.1 * made.gradients[0].flatten()[list(sorted(kept))])


def test_temperatures_of_the_recipe():
    """200 epochs of 500 steps: changes after epochs 25, 80 and 140."""
    made = DeepR()
    steps = [1, 12_500, 12_501, 40_000, 40_001, 70_000, 70_001, 95_000]
    assert [made.temperature(s, 100_000) for s in steps] == [1e-5, 1e-5, 1e-8, 1e-8, 1e-12, 1e-12, 1e-15, 1e-15]


@given(st.integers(1, 3000))
def test_reports_end_with_the_last_step_that_rewires(total):
    made = DeepR()
    reports = made.reports(total)
    assert reports == sorted(set(reports))
    assert reports[-1:] == [made.last(total)] * (made.last(total) > 0)
    assert all(1 <= r <= total for r in reports)
    stretches = list(made.planned_phases([10], [1], None, total))
    assert sum(length for length, _ in stretches) == total
    assert len(stretches) - 1 == len(reports)
    assert total < 40 or len(reports) < total / 5


def test_reports_of_the_recipe():
    assert DeepR().reports(100_000) == list(range(100, 95_001, 100))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["precision=fp16"],
            "precision=fp16 makes no sense with method.noise=gradients, which would be drowned by the scaled loss: "
            "set precision=bf16 or method.noise=weights",
        ),
        (
            ["grow=gradient"],
            "grow=gradient makes no sense with method=deepr, which prunes connections that change their sign and grows "
            "others at random, at every step",
        ),
        (["sparsity=0"], "sparsity=0 makes no sense with method=deepr: no connection is left to grow"),
        (
            ["method.temperatures=[1e-5]"],
            "method.temperatures=[1e-05] must be one number more than method.temperature_changes=[0.125, 0.4, 0.7]",
        ),
        (["method.noise=loss"], "method.noise=loss is not known: choose gradients, weights"),
    ],
)
def test_refusals(words, sentence):
    with pytest.raises(ConfigError) as error:
        compose(["method=deepr", *words])
    assert str(error.value) == sentence


def test_fp16_goes_with_noise_on_weights():
    assert compose(["method=deepr", "precision=fp16", "method.noise=weights"])
