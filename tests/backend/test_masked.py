import pytest
import torch
from torch import nn
from torch.nn import functional

from dstrun.backend.masked import MaskedLayer, sparsify
from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.grow.random import Random
from dstrun.layer import prunable
from dstrun.optimizer.adam import Adam
from dstrun.optimizer.adamw import AdamW
from dstrun.optimizer.sgd import SGD
from dstrun.stream import generator
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform
from dstrun.topology import Topology

MODULES = {
    "linear": (lambda: nn.Linear(12, 8), (4, 12)),
    "tokens": (lambda: nn.Linear(12, 8, bias=False), (2, 5, 12)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 6, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)), (2, 4, 8, 7)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2), (2, 4, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 6)),
    "row": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
}
modules = pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
OPTIMIZERS = {
    "sgd": SGD(lr=0.01, momentum=0.9, weight_decay=0.1),
    "nesterov": SGD(lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    "plain": SGD(lr=0.01, momentum=0, weight_decay=0.1),
    "adam": Adam(lr=0.01, weight_decay=0.1),
    "adamw": AdamW(lr=0.01, weight_decay=0.1),
}
optimizers = pytest.mark.parametrize("option", OPTIMIZERS.values(), ids=OPTIMIZERS)
CRITERIA = {
    "gradient": Gradient(),
    "uniform": GSE(subset=Uniform()),
    "grabo": GSE(subset=GraBo(), gamma=0.5),
    "graest": GSE(subset=GraEst(), sampling="single"),
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, bias=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def sparse(make, density=0.4, seed=0):
    """Give one sparse layer."""
    module = make()
    (layer,) = sparsify(module, [round(density * module.weight.numel())], seed)
    return layer


def loss_of(layer, shape, seed=1):
    """Give a loss whose output gradient is not constant."""
    torch.manual_seed(seed)
    return layer.module(torch.randn(shape)).square().sum()


def dense_gradient(layer, shape, seed=1):
    """Compute the gradient of every connection apart from the layer: (N,)."""
    torch.manual_seed(seed)
    x, module = torch.randn(shape), layer.module
    weight = module.weight.detach().clone().requires_grad_()
    if isinstance(module, nn.Linear):
        y = functional.linear(x, weight, module.bias)
    else:
        convolution = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d
        y = convolution(x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups)
    (gradient,) = torch.autograd.grad(y.square().sum(), weight)
    return gradient.flatten()


def inactive_of(layer, tensor):
    return tensor.flatten()[~layer.mask.flatten()]


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


# --- exploration ------------------------------------------------------------------------------------------------------


@modules
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_candidates_are_scored_by_their_true_gradient(make, shape, criterion):
    layer = sparse(make)
    blocked = layer.topology.positions[::2].contiguous()
    layer.explore(criterion, blocked, 1000, generator(0, "grow"))
    loss_of(layer, shape).backward()
    found = layer.proposal()
    true = dense_gradient(layer, shape).abs()
    torch.testing.assert_close(found.scores, true[found.positions])
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert found.drawn == found.positions.numel() == found.positions.unique().numel() > 0
    assert not set(found.positions.tolist()) & set(blocked.tolist())


@modules
@pytest.mark.parametrize("limit", [0, 5, 1000])
def test_rigl_finds_the_largest_gradients_by_brute_force(make, shape, limit):
    layer = sparse(make)
    blocked = layer.topology.positions[1::2].contiguous()
    layer.explore(Gradient(), blocked, limit, generator(0, "grow"))
    loss_of(layer, shape).backward()
    found = layer.proposal()
    true = dense_gradient(layer, shape).abs().tolist()
    free = sorted(set(range(len(true))) - set(blocked.tolist()), key=lambda p: -true[p])
    assert found.positions.tolist() == free[:limit]
    assert found.drawn == len(free)


@modules
@pytest.mark.parametrize("subset", [GraBo(), GraEst(), Uniform()], ids=lambda s: type(s).__name__)
def test_gse_draws_from_the_pass_it_scores(make, shape, subset):
    """The layer's own hooks see the x and delta that autograd sees."""
    layer, seen = sparse(make), []

    class Spy:
        aggregates = True

        def factors(self, exploration):
            seen.append(exploration)
            return subset.factors(exploration)

    layer.explore(GSE(subset=Spy(), gamma=0.5), layer.topology.positions, 4, generator(0, "grow"))
    torch.manual_seed(1)
    x = torch.randn(shape)
    y = layer.module(x)
    y.square().sum().backward()
    (exploration,) = seen
    assert torch.equal(exploration.x, x)
    assert torch.equal(exploration.delta, 2 * y.detach())
    assert exploration.active == layer.topology.count
    found = layer.proposal()
    assert found.positions.numel() == 4
    assert found.drawn == -(-layer.topology.count // 2)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_exploring_leaves_the_pass_as_it_was_and_disarms(network, criterion):
    layers = sparsify(network, [20, 100, 7], seed=0)
    x = torch.randn(4, 3, 8, 8)

    def gradients():
        network.zero_grad()
        network(x).square().sum().backward()
        return [p.grad.clone() for p in network.parameters()]

    plain = gradients()
    for index, layer in enumerate(layers):
        layer.explore(criterion, layer.topology.positions, 3, generator(0, "grow", index))
    armed = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, armed, strict=True))
    for layer in layers:
        assert not layer.module._forward_hooks
        assert not layer.module.weight._post_accumulate_grad_hooks
        assert layer.proposal().positions.numel() == 3
        with pytest.raises(RuntimeError, match=f"{layer.name}: no armed backward has run"):
            layer.proposal()
    gradients()
    with pytest.raises(RuntimeError, match="no armed backward has run"):
        layers[0].proposal()


def test_an_in_place_activation_does_not_disturb_what_is_seen():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    layers = sparsify(model, [18, 9], seed=0)
    for layer in layers:
        layer.explore(Gradient(), layer.topology.positions, 4, generator(0))
    model(torch.randn(5, 6)).square().sum().backward()
    for layer in layers:
        true = layer.module.weight.grad.flatten().abs()
        found = layer.proposal()
        torch.testing.assert_close(found.scores, inactive_of(layer, true).topk(4).values)


@modules
def test_a_pass_without_gradients_is_not_the_one_that_is_looked_at(make, shape):
    """As where a part of the network is passed again in the backward pass, with gradients."""
    layer = sparse(make)
    layer.explore(Gradient(), layer.topology.positions, 4, generator(0))
    x = torch.randn(*shape)
    with torch.no_grad():
        layer.module(2 * x)
    layer.module(x).square().sum().backward()
    true = layer.module.weight.grad.flatten().abs()
    torch.testing.assert_close(layer.proposal().scores, inactive_of(layer, true).topk(4).values)


@pytest.mark.parametrize("subset", [GraBo(), GraEst()], ids=lambda s: type(s).__name__)
def test_exploring_under_automatic_mixed_precision(network, subset):
    layers = sparsify(network, [20, 100, 7], seed=0)
    for layer in layers:
        layer.explore(GSE(subset=subset), layer.topology.positions, 3, generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(4, 3, 8, 8)).float().square().mean()
    loss.backward()
    for layer in layers:
        found = layer.proposal()
        assert torch.equal(found.scores, layer.module.weight.grad.flatten()[found.positions].abs())


def test_proposing_without_gradients():
    layer = sparse(lambda: nn.Linear(12, 8))
    found = layer.propose(Random(), layer.topology.positions, 6, generator(0, "grow"))
    assert found.positions.unique().numel() == 6
    assert not set(found.positions.tolist()) & set(layer.topology.positions.tolist())
    assert layer.module.weight.grad is None


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
