import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_setting import setting
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.method.gradual.gmp import GMP, remaining, update_steps
from dstrun.method.pruning import EmptyLayer
from dstrun.prune.magnitude import Magnitude
from dstrun.schedule.cosine import Cosine
from dstrun.schedule.cubic import Cubic
from dstrun.system.trouble import ConfigError

WEIGHTS = [0.5, -0.1, 0.3, -0.8, 0.2, 0.7, -0.4, 0.6]


def network(*weights):
    net = nn.Sequential(*[nn.Linear(4, 2, bias=False) for _ in weights])
    for module, values in zip(net, weights, strict=True):
        module.weight.data = torch.tensor(values).view(2, 4)
    return net, masked.wrap(net, torch.device("cpu"))


def start(layers, schedule, **changes):
    return GMP().procedure(setting(layers, prune=Magnitude(), schedule=schedule, total_steps=8, **changes))


def test_eight_weights_to_two_along_the_cubic():
    """Updates at 2, 4, 6, 8 of t_end = 8; 2 + 6 (1 - p)^3 at p = 1/4, 1/2, 3/4, 1: 4.53, 2.75, 2.09 and 2."""
    _, (layer,) = network(WEIGHTS)
    procedure = start([layer], Cubic(fraction=1, end=1, interval_steps=2), counts=[2], budget=2)
    left = {}
    for step in range(1, 9):
        update = procedure.after_step(step)
        assert (update is not None) == (step % 2 == 0) == procedure.updates_at(step)
        left[step] = layer.topology.positions.tolist()
    assert left[1] == list(range(8))
    assert left[2] == left[3] == [0, 3, 5, 6, 7]
    assert left[4] == [3, 5, 7]
    assert left[6] == left[8] == [3, 5]
    assert layer.values().tolist() == pytest.approx([-0.8, 0.7])


def test_the_cosine_of_the_gse_authors():
    """2 + 6 (1 + cos(pi t / 8)) / 2 at 4 is 5, at 8 is 2."""
    _, (layer,) = network(WEIGHTS)
    procedure = start([layer], Cosine(fraction=1, end=1, interval_steps=4), counts=[2], budget=2)
    procedure.after_step(4)
    assert layer.topology.positions.tolist() == [0, 3, 5, 6, 7]
    procedure.after_step(8)
    assert layer.topology.positions.tolist() == [3, 5]


def test_layers_keep_their_allocation_or_are_ranked_together():
    small = [w / 100 for w in WEIGHTS]
    _, layers = network(WEIGHTS, small)
    start(layers, Cubic(fraction=1, end=1, interval_steps=8), counts=[1, 3], budget=4).after_step(8)
    assert [layer.topology.positions.tolist() for layer in layers] == [[3], [3, 5, 7]]
    _, layers = network(WEIGHTS, [*small[:7], 0.75])
    start(layers, Cubic(fraction=1, end=1, interval_steps=8), budget=4).after_step(8)
    assert [layer.topology.positions.tolist() for layer in layers] == [[3, 5, 7], [7]]


def test_a_layer_that_empties_is_said_or_refused(caplog):
    small = [w / 100 for w in WEIGHTS]
    schedule = Cubic(fraction=1, end=1, interval_steps=8)
    _, layers = network(WEIGHTS, small)
    start(layers, schedule, budget=4).after_step(8)
    assert [layer.count for layer in layers] == [4, 0]
    assert "no connection is left in 1, 1 of 2 layers: only biases and shortcuts pass there" in caplog.text
    _, layers = network(WEIGHTS, small)
    with pytest.raises(
        EmptyLayer, match="no connection would be left in 1, 1 of 2 layers, and strict=true refuses that"
    ):
        start(layers, schedule, budget=4, strict=True).after_step(8)
    assert [layer.count for layer in layers] == [8, 8]


def test_pruned_connections_have_no_momentum_and_stay_away():
    net, (layer,) = network(WEIGHTS)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    layer.optimizer = optimizer
    procedure = start([layer], Cubic(fraction=1, end=0.5, interval_steps=4), counts=[3], budget=3)
    for step in range(1, 9):
        net(torch.randn(5, 4)).square().sum().backward()
        layer.confine_gradient()
        optimizer.step()
        procedure.after_step(step)
        optimizer.zero_grad()
    outside = ~layer.mask
    assert layer.count == 3
    assert not layer.weight[outside].any()
    assert not optimizer.state[layer.weight]["momentum_buffer"][outside].any()


@given(
    st.integers(1, 1000), st.integers(0, 1000), st.floats(0.01, 1), st.floats(0, 0.5), st.floats(0.5, 1),
    st.sampled_from([Cubic, Cosine]),
)  # fmt: skip
def test_the_sparsity_only_rises_and_ends_at_the_target(size, left, fraction, begin, end, kind):
    total, target = 500, min(left, size)
    schedule = kind(fraction=fraction, begin=begin if begin < end else 0, end=end, interval_steps=7)
    steps = update_steps(schedule, total)
    counts = [size, *[remaining(size, target, schedule, step, total) for step in steps]]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == target
    assert steps[-1] == max(1, round(end * total))


def test_zhu_and_gupta_equation_1():
    """s_t = s_f + (s_i - s_f)(1 - (t - t_0) / (n dt))^3: s_i 0.2, s_f 0.8, t_0 100, n dt 400, t 200."""
    schedule = Cubic(fraction=1 - 0.2 / 0.8, begin=0.1, end=0.5, interval_steps=100)
    sparsity = 0.8 + (0.2 - 0.8) * (1 - 100 / 400) ** 3
    assert remaining(10_000, 2_000, schedule, 200, 1000) == round(10_000 * (1 - sparsity))


def test_what_makes_no_sense_is_refused():
    for words, sentence in {
        "grow=random": "grow=random makes no sense with method=gmp, which only ever prunes",
        "backend=sparse": "backend=sparse makes no sense with method=gmp, which starts dense",
        "scope=global": "allocation=erk makes no sense with method=gmp scope=global, where scores decide the "
        "allocation: set "
        "scope=layer",
    }.items():
        with pytest.raises(ConfigError) as error:
            compose(["method=gmp", words])
        assert str(error.value) == sentence
