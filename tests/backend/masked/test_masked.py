import pytest
import torch
from masked_case import (
    OPTIMIZERS,
    dense_gradient,
    inactive_of,
    loss_of,
    modules,
    optimizers,
    sparse,
)
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer, sparsify
from dstrun.layer.interface import prunable
from dstrun.layer.topology import Topology

# --- sparsify ---------------------------------------------------------------------------------------------------------


def test_counts_are_exact_and_all_else_is_zero(network):
    layers = sparsify(network, [20, 100, 7], seed=0)
    assert [layer.name for layer in layers] == ["0", "3", "6"]
    for layer, (_, module), count in zip(layers, prunable(network), [20, 100, 7], strict=True):
        assert layer.topology.count == count == int(module.weight.count_nonzero())
        assert module.weight.flatten().nonzero().flatten().tolist() == layer.topology.positions.tolist()
        assert layer.topology.shape == layer.geometry.shape == module.weight.shape
        assert torch.equal(layer.values(), module.weight.flatten()[layer.topology.positions])


def test_weights_are_scaled_by_the_active_fan_in_and_biases_too():
    module = nn.Linear(400, 500)
    (layer,) = sparsify(module, [10_000], seed=0)
    fan_in = layer.topology.fan_in()
    scaled = layer.values() * fan_in[layer.topology.positions // 400].sqrt()
    assert scaled.var().item() == pytest.approx(1, abs=5 * (0.8 / 10_000) ** 0.5)
    assert scaled.abs().max() <= 3**0.5 + 1e-5
    bias = module.bias.detach() * fan_in.sqrt()
    assert bias.var().item() == pytest.approx(1, abs=5 * (0.8 / 500) ** 0.5)
    assert bias.abs().max() <= 3**0.5 + 1e-5


def test_other_parameters_stay(network):
    with torch.no_grad():
        network[1].weight.fill_(0.25)
    sparsify(network, [20, 100, 7], seed=0)
    assert network[1].weight.unique().tolist() == [0.25]


def test_a_seed_names_topology_and_weights_and_layers_differ():
    def state(seed, count=30):
        model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
        layers = sparsify(model, [count, count], seed)
        return [t for layer in layers for t in (layer.topology.positions, layer.values(), layer.module.bias)]

    first, again, other = state(0), state(0), state(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[3])
    _, values, bias, _, *others = state(0, count=81)  # dense: what differs is not the fan-in
    assert not any(torch.equal(a, b) for a, b in zip((values, bias), others, strict=True))


@pytest.mark.parametrize("counts", [[20, 100], [20, 100, 7, 7]])
def test_as_many_counts_as_layers(network, counts):
    with pytest.raises(ValueError, match="zip"):
        sparsify(network, counts, seed=0)


# --- training ---------------------------------------------------------------------------------------------------------


@modules
def test_gradient_of_the_active_is_the_dense_gradient_there(make, shape):
    layer = sparse(make)
    with pytest.raises(RuntimeError, match="no gradient yet"):
        layer.grad()
    loss_of(layer, shape).backward()
    true = dense_gradient(layer, shape)
    torch.testing.assert_close(layer.grad(), true[layer.topology.positions])
    assert inactive_of(layer, layer.module.weight.grad).any()
    layer.confine_gradient()
    assert not inactive_of(layer, layer.module.weight.grad).any()
    torch.testing.assert_close(layer.grad(), true[layer.topology.positions])


def test_what_is_not_finite_is_dropped_outside_the_topology_and_kept_inside():
    layer = MaskedLayer("fc", nn.Linear(4, 1), Topology((1, 4), torch.tensor([0, 1])))
    inf, nan = float("inf"), float("nan")
    layer.module.weight.grad = torch.tensor([[1.0, inf, inf, nan]])
    layer.confine_gradient()
    assert layer.module.weight.grad.tolist() == [[1, inf, 0, 0]]


@optimizers
def test_inactive_weights_stay_zero_through_momentum_and_decay(network, option):
    layers = sparsify(network, [20, 100, 7], seed=0)
    optimizer = option.build(network.parameters())
    for layer in layers:
        layer.optimizer = optimizer
    before = [layer.values().clone() for layer in layers]
    for step in range(6):
        optimizer.zero_grad()
        torch.manual_seed(step)
        network(torch.randn(4, 3, 8, 8)).square().sum().backward()
        for layer in layers:
            layer.confine_gradient()
        optimizer.step()
        if step == 2:  # connections that had momentum are pruned, and must not move on by it
            for layer in layers:
                free = (~layer.mask.flatten()).nonzero().flatten()
                layer.rewire(layer.topology.positions[:3], free[:3])
            before = [layer.values().clone() for layer in layers]
        for layer in layers:
            assert not inactive_of(layer, layer.module.weight).any()
            for tensor in optimizer.state[layer.module.weight].values():
                if tensor.is_floating_point() and tensor.shape == layer.module.weight.shape:  # ages count everywhere
                    assert not inactive_of(layer, tensor).any()
    assert all(bool((layer.values() != old).all()) for layer, old in zip(layers, before, strict=True))


@pytest.mark.parametrize(("name", "names"), [("sgd", ["momentum_buffer"]), ("adamw", ["exp_avg", "exp_avg_sq"])])
def test_rewire_clears_what_changed_and_nothing_else(name, names):
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
    layers = sparsify(model, [5, 6], seed=0)
    optimizer = OPTIMIZERS[name].build(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().sum().backward()
        for layer in layers:
            layer.confine_gradient()
        optimizer.step()
    layer = layers[0]
    layer.optimizer = optimizer
    weight, positions = layer.module.weight, layer.topology.positions
    prune, grow = positions[[3, 1]], (~layer.mask.flatten()).nonzero().flatten()[:2]
    with torch.no_grad():  # were anything left in an inactive place, growing there must clear it
        weight.view(-1)[grow] = 7
        for key in names:
            optimizer.state[weight][key].view(-1)[grow] = 7
    tracked = {(p, k): v for p, state in optimizer.state.items() for k, v in state.items() if torch.is_tensor(v)}
    tracked |= {(p, "value"): p.detach() for p in model.parameters()}
    before = {key: value.clone() for key, value in tracked.items()}
    layer.rewire(prune, grow)
    changed = torch.cat([prune, grow])
    cleared = {(weight, key) for key in (*names, "value")}
    for key, value in tracked.items():
        expected = before[key].clone()
        if key in cleared:
            assert expected.view(-1)[changed].all()
            expected.view(-1)[changed] = 0
        assert torch.equal(value, expected), key[1]
    left = sorted((set(positions.tolist()) - set(prune.tolist())) | set(grow.tolist()))
    assert layer.topology.positions.tolist() == left == layer.mask.flatten().nonzero().flatten().tolist()


def test_rewire_before_any_step_and_without_an_optimizer():
    layer = sparse(lambda: nn.Linear(4, 2), 0.5)
    kept = layer.topology.positions[1:]
    grow = (~layer.mask.flatten()).nonzero().flatten()[:1]
    values = layer.values()[1:].clone()
    layer.rewire(layer.topology.positions[:1], grow)
    assert torch.equal(layer.module.weight.flatten()[kept], values)
    assert layer.module.weight.flatten()[grow].item() == 0
    layer.optimizer = OPTIMIZERS["sgd"].build(layer.module.parameters())
    layer.rewire(grow, torch.empty(0, dtype=torch.int64))
    assert layer.topology.count == 3


def test_a_refused_rewiring_changes_nothing():
    layer = sparse(lambda: nn.Linear(4, 2), 0.5)
    positions, weight, mask = layer.topology.positions, layer.module.weight.detach().clone(), layer.mask.clone()
    with pytest.raises(ValueError, match="already active"):
        layer.rewire(positions[:1], positions[1:2])
    assert layer.topology.positions is positions
    assert torch.equal(layer.module.weight, weight)
    assert torch.equal(layer.mask, mask)


# --- state ------------------------------------------------------------------------------------------------------------


def test_state_round_trip():
    layer, other = sparse(lambda: nn.Linear(6, 4), seed=0), sparse(lambda: nn.Linear(6, 4), seed=1)
    free = (~layer.mask.flatten()).nonzero().flatten()
    layer.rewire(layer.topology.positions[:3], free[:3])
    other.module.load_state_dict(layer.module.state_dict())
    other.load_state({name: tensor.clone() for name, tensor in layer.state().items()})
    assert torch.equal(other.topology.positions, layer.topology.positions)
    assert torch.equal(other.values(), layer.values())
    assert torch.equal(other.mask, layer.mask)
    assert torch.equal(other.ever, layer.ever)
    assert other.explored() == layer.explored()


def test_explored_share_counts_every_connection_once():
    layer = MaskedLayer("fc", nn.Linear(4, 2), Topology((2, 4), torch.tensor([0, 1, 2])))
    assert layer.explored() == 3 / 8
    layer.rewire(torch.tensor([0, 1]), torch.tensor([5, 6]))
    assert layer.explored() == 5 / 8
    layer.rewire(torch.tensor([5]), torch.tensor([0]))
    assert layer.explored() == 5 / 8


def test_index():
    layer = MaskedLayer("fc", nn.Linear(4, 2), Topology((2, 4), torch.tensor([0, 1, 2])))
    assert [t.nbytes for t in layer.index()] == [3 * 8, 8, 8]  # positions, mask, ever


def test_setting_values_clears_all_others():
    layer = MaskedLayer("fc", nn.Linear(3, 1), Topology((1, 3), torch.tensor([0, 2])))
    layer.set_values(torch.tensor([1.0, 2.0]))
    assert layer.module.weight.tolist() == [[1, 0, 2]]
