"""What masked layers propose to grow."""

import pytest
import torch
from masked_case import (
    CRITERIA,
    dense_gradient,
    inactive_of,
    loss_of,
    modules,
    sparse,
)
from torch import nn

from dstrun.backend.masked.layer import sparsify
from dstrun.grow.gradient import Gradient
from dstrun.grow.gse import GSE
from dstrun.grow.random import Random
from dstrun.layer.growth import GrowthRequest, propose
from dstrun.subset.grabo import GraBo
from dstrun.subset.graest import GraEst
from dstrun.subset.uniform import Uniform
from dstrun.system.stream import generator

# --- requests ---------------------------------------------------------------------------------------------------------


@modules
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_candidates_are_scored_by_their_true_gradient(make, shape, criterion):
    layer = sparse(make)
    blocked = layer.topology.positions[::2].contiguous()
    layer.request_growth(GrowthRequest(criterion, 1000, generator(0, "grow"), blocked))
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
    layer.request_growth(GrowthRequest(Gradient(), limit, generator(0, "grow"), blocked))
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

    layer.request_growth(GrowthRequest(GSE(subset=Spy(), gamma=0.5), 4, generator(0, "grow"), layer.topology.positions))
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
def test_searching_leaves_the_pass_as_it_was_and_disarms(network, criterion):
    layers = sparsify(network, [20, 100, 7], seed=0)
    x = torch.randn(4, 3, 8, 8)

    def gradients():
        network.zero_grad()
        network(x).square().sum().backward()
        return [p.grad.clone() for p in network.parameters()]

    plain = gradients()
    for index, layer in enumerate(layers):
        layer.request_growth(GrowthRequest(criterion, 3, generator(0, "grow", index), layer.topology.positions))
    armed = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, armed, strict=True))
    for layer in layers:
        assert not layer.module._forward_hooks
        assert not layer.module.weight._post_accumulate_grad_hooks
        assert layer.proposal().positions.numel() == 3
        with pytest.raises(RuntimeError, match=f"{layer.name}: no backward pass has run since growth was requested"):
            layer.proposal()
    gradients()
    with pytest.raises(RuntimeError, match="no backward pass has run since growth was requested"):
        layers[0].proposal()


def test_an_in_place_activation_does_not_disturb_what_is_seen():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    layers = sparsify(model, [18, 9], seed=0)
    for layer in layers:
        layer.request_growth(GrowthRequest(Gradient(), 4, generator(0), layer.topology.positions))
    model(torch.randn(5, 6)).square().sum().backward()
    for layer in layers:
        true = layer.module.weight.grad.flatten().abs()
        found = layer.proposal()
        torch.testing.assert_close(found.scores, inactive_of(layer, true).topk(4).values)


@modules
def test_a_pass_without_gradients_is_not_the_one_that_is_looked_at(make, shape):
    """As where a part of the network is passed again in the backward pass, with gradients."""
    layer = sparse(make)
    layer.request_growth(GrowthRequest(Gradient(), 4, generator(0), layer.topology.positions))
    x = torch.randn(*shape)
    with torch.no_grad():
        layer.module(2 * x)
    layer.module(x).square().sum().backward()
    true = layer.module.weight.grad.flatten().abs()
    torch.testing.assert_close(layer.proposal().scores, inactive_of(layer, true).topk(4).values)


@pytest.mark.parametrize("subset", [GraBo(), GraEst()], ids=lambda s: type(s).__name__)
def test_searching_under_automatic_mixed_precision(network, subset):
    layers = sparsify(network, [20, 100, 7], seed=0)
    for layer in layers:
        layer.request_growth(GrowthRequest(GSE(subset=subset), 3, generator(0), layer.topology.positions))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(4, 3, 8, 8)).float().square().mean()
    loss.backward()
    for layer in layers:
        found = layer.proposal()
        assert torch.equal(found.scores, layer.module.weight.grad.flatten()[found.positions].abs())


def test_proposing_without_gradients():
    layer = sparse(lambda: nn.Linear(12, 8))
    found = propose(layer, GrowthRequest(Random(), 6, generator(0, "grow"), layer.topology.positions))
    assert found.positions.unique().numel() == 6
    assert not set(found.positions.tolist()) & set(layer.topology.positions.tolist())
    assert layer.module.weight.grad is None
