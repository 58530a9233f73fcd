import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dstrun.config.composition import compose
from dstrun.method.at_init.linearized import shares
from dstrun.method.at_init.snip import SNIP
from dstrun.method.at_init.synflow import SynFlow, flow, positive
from dstrun.method.rounds import survivors

# |W1| = [[1, 2], [3, 0.5]]: an input of ones gives h = (3, 3.5); the columns of |W2|, [[1, 4], [2, 1]], sum to 3 and 5.
W1 = [1.0, -2.0, 3.0, 0.5]
W2 = [-1.0, 4.0, 2.0, 1.0]
SCORES = [3.0, 6.0, 15.0, 2.5], [3.0, 14.0, 6.0, 3.5]


def chain(*weights):
    net = nn.Sequential(nn.Flatten(), *[nn.Linear(2, 2, bias=False) for _ in weights])
    for module, values in zip(list(net)[1:], weights, strict=True):
        module.weight.data = torch.tensor(values).view(2, 2)
    return net


def perceptron(*widths, seed=0, bias=False):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_eight_weights_by_hand(scored):
    made = scored(chain(W1, W2), image=(1, 1, 2), budget=4)
    (first, second), passed = SynFlow(rounds=1).score(made.setting)
    assert (first.tolist(), second.tolist(), passed) == (*SCORES, 1)
    SynFlow(rounds=1).procedure(made.setting).prepare()
    assert made.kept() == [[1, 2], [1, 2]]
    assert [layer.values().tolist() for layer in made.layers] == [[-2.0, 3.0], [4.0, 2.0]]
    assert made.drawn == []


def test_a_second_round_scores_what_the_first_has_left(scored):
    """8 (2 / 8)^(1/2) = 4 are left: then h = (2, 3), the columns sum to 2 and 4, and the path of 3 and 4 wins."""
    made = scored(chain(W1, W2), image=(1, 1, 2), budget=2)
    (first, second), _ = SynFlow(rounds=2).score(made.setting)
    assert first.tolist() == [-1, 4, 12, -1]
    assert second.tolist() == [-1, 12, 4, -1]
    update = SynFlow(rounds=2).procedure(made.setting).prepare()
    assert made.kept() == [[2], [1]]
    assert update.samples == SynFlow(rounds=2).scored_samples(10) == 2


def test_each_layer_goes_to_its_own_count(scored):
    """W1 from 4 by 4 and 3 to 3, W2 by 3 and 2 to 1; once W2 has lost its first, W1 has 2, 4, 15, 2.5 and loses 0."""
    made = scored(chain(W1, W2), image=(1, 1, 2), counts=[3, 1], budget=4)
    SynFlow(rounds=3).procedure(made.setting).prepare()
    assert made.kept() == [[1, 2, 3], [1]]
    made = scored(chain(W1, W2), image=(1, 1, 2), counts=[3, 1], budget=4)
    SynFlow(rounds=1).procedure(made.setting).prepare()
    assert made.kept() == [[0, 1, 2], [1]]


@pytest.mark.parametrize("seed", range(3))
def test_flow_is_conserved_at_every_unit_and_in_every_layer(scored, seed):
    made = scored(perceptron(5, 9, 7, 4, seed=seed), image=(1, 1, 5))
    net, weights = positive(made.setting)
    ones = torch.ones(1, 1, 1, 5, dtype=torch.float64)
    scores = [s.view(w.shape) for s, w in zip(flow(net, weights, ones), weights, strict=True)]
    for into, out in pairwise(scores):
        torch.testing.assert_close(into.sum(1), out.sum(0))
    for score in scores:
        torch.testing.assert_close(score.sum(), net(ones).sum().detach())


def test_flow_is_conserved_with_biases_as_connections(scored):
    made = scored(perceptron(5, 9, 4, bias=True), image=(1, 1, 5))
    net, weights = positive(made.setting)
    ones = torch.ones(1, 1, 1, 5, dtype=torch.float64)
    into, out = (s.view(w.shape) for s, w in zip(flow(net, weights, ones), weights, strict=True))
    (slope,) = torch.autograd.grad(net(ones).sum(), net[1].bias)
    assert (net[1].bias > 0).all()
    torch.testing.assert_close(into.sum(1) + (slope * net[1].bias).detach(), out.sum(0))


@pytest.mark.parametrize("seed", range(5))
def test_no_layer_collapses_before_it_must(scored, seed):
    """A path is left even at the maximal critical compression, one connection a layer; others empty layers before."""
    image, x, y = (1, 1, 6), torch.randn(30, 1, 1, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3

    def pruned(method, budget):
        made = scored(perceptron(6, 40, 40, 10, 3, seed=seed), lambda step, n: (x, y), image=image, budget=budget)
        method.procedure(made.setting).prepare()
        assert sum(map(len, made.kept())) == budget
        return made

    for budget in (4, 5, 8, 20):
        net, _ = positive(pruned(SynFlow(), budget).setting)
        assert net(torch.ones(1, *image, dtype=torch.float64)).sum() > 0
    assert not all(pruned(SNIP(), 8).kept())
    assert not all(pruned(SynFlow(rounds=1), 8).kept())


@given(size=st.integers(1, 10**7), density=st.floats(0, 1), rounds=st.integers(1, 100))
def test_what_is_left_falls_to_the_target(size, density, rounds):
    target = round(size * density)
    counts = [survivors(size, target, k / rounds) for k in range(rounds + 1)]
    assert counts[0] == size
    assert counts[-1] == target
    assert counts == sorted(counts, reverse=True)


def built(name, width, image=(3, 32, 32)):
    torch.manual_seed(0)
    return compose([f"model={name}", f"model.width={width}"]).build("model").build(image, 10)


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "vit", "mlp"])
def test_the_network_and_every_random_stream_stay_as_they_are(scored, name):
    made = scored(built(name, 0.25), image=(3, 32, 32), budget=5000)
    before, modes = copy.deepcopy(made.net.state_dict()), [m.training for m in made.net.modules()]
    buffers = [b.clone() for b in made.net.buffers()]
    stream = torch.get_rng_state()
    first, again = (SynFlow(rounds=3).score(made.setting)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in made.net.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(buffers, made.net.buffers(), strict=True))
    assert [m.training for m in made.net.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in made.net.parameters())


@pytest.mark.parametrize(("name", "width"), [("vit", 1.0), ("resnet110", 2.0), ("resnet50", 0.5), ("vgg16", 1.0)])
def test_deep_networks_stay_in_the_range_of_float64(scored, name, width):
    made = scored(built(name, width), image=(3, 32, 32))
    net, weights = positive(made.setting)
    scores = flow(net, weights, torch.ones(1, 3, 32, 32, dtype=torch.float64))
    assert all(torch.isfinite(s).all() and s.any() for s in scores)


def test_a_flow_out_of_range_is_refused(scored):
    net = perceptron(2, 2, 2)
    for parameter in net.parameters():
        parameter.data.fill_(1e38)
    made = scored(nn.Sequential(*[copy.deepcopy(net[1]) for _ in range(9)]), image=(1, 1, 2))
    with pytest.raises(OverflowError, match="of this network is inf, too large for torch"):
        SynFlow().score(made.setting)


def test_queries_keys_and_values_pass_the_same_flow(scored):
    """Attention is linear in each of them, with the softmax's divisor held constant."""
    made = scored(built("vit", 0.5), image=(3, 32, 32))
    net, weights = positive(made.setting)
    scores = flow(net, weights, torch.ones(1, 3, 32, 32, dtype=torch.float64))
    for block in range(4):
        index = [layer.name for layer in made.layers].index(f"blocks.{block}.attention.qkv")
        query, key, value = scores[index].view(weights[index].shape).chunk(3)
        torch.testing.assert_close(query.sum(), value.sum())
        torch.testing.assert_close(key.sum(), value.sum())
        torch.testing.assert_close(value.sum(), scores[index + 1].sum())


def test_normalization_and_gelu_of_a_transformer_pass_unchanged(scored):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(6, 8, bias=False), nn.Linear(8, 2, bias=False))
    dressed = nn.Sequential(plain[0], plain[1], nn.LayerNorm(8), nn.GELU(), plain[2])
    ones = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    flows = [flow(*positive(scored(net, image=(1, 2, 3)).setting), ones) for net in (plain, dressed)]
    assert all(torch.equal(a, b) for a, b in zip(*flows, strict=True))


def test_powerprop_ranks_as_the_weights_it_computes(scored):
    from dstrun.method.soft.powerprop import reparametrize

    plain = scored(perceptron(6, 20, 4), image=(1, 1, 6), budget=30)
    powered = scored(perceptron(6, 20, 4), image=(1, 1, 6), budget=30)
    reparametrize(powered.net, 2.0)
    for made in (plain, powered):
        SynFlow(rounds=10).procedure(made.setting).prepare()
    assert plain.kept() == powered.kept()


def test_attention_weighs_by_shares_and_passes_nothing_where_no_query_is_left():
    found = shares(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    assert found.tolist() == [[0.25, 0.75], [0.0, 0.0]]
