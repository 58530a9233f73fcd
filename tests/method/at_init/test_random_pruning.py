import pytest
import torch
from scipy.stats import binom, chisquare
from torch import nn

from dstrun.config.composition import compose
from dstrun.layer.criterion import Cost
from dstrun.method.at_init.random import Random
from dstrun.system.trouble import ConfigError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 40))


def test_values_stay_those_of_the_dense_network_and_the_budget_is_exact(scored):
    made, dense = scored(network(), budget=123), network()
    stream = torch.get_rng_state()
    update = Random().procedure(made.setting).prepare()
    assert torch.equal(torch.get_rng_state(), stream)
    assert sum(len(k) for k in made.kept()) == 123
    for layer, module in zip(made.layers, dense, strict=True):
        assert torch.equal(layer.values(), module.weight.detach().flatten()[layer.topology.positions])
    assert (update.cost, update.samples, made.drawn) == (Cost.NONE, 0, [])
    assert Random().scored_samples(10) == 0


def test_each_layer_keeps_its_count(scored):
    made = scored(network(), counts=[7, 100], budget=107)
    Random().procedure(made.setting).prepare()
    assert [len(k) for k in made.kept()] == [7, 100]


def test_every_connection_is_as_likely_whatever_its_layer(scored):
    kept = torch.zeros(4 + 12)
    for seed in range(400):
        made = scored(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 6)), budget=4, seed=seed)
        Random().procedure(made.setting).prepare()
        first, second = made.kept()
        kept[first] += 1
        kept[[4 + position for position in second]] += 1
    assert kept.sum() == 1600
    assert chisquare(kept).pvalue > 1e-3
    assert 1e-3 < binom.cdf(kept[:4].sum().item(), 1600, 0.25) < 1 - 1e-3


def test_an_allocation_needs_scope_layer():
    made = compose(["method=random", "scope=layer", "allocation=erk"])
    assert made.build("method").allocates("layer")
    with pytest.raises(ConfigError) as error:
        compose(["method=random", "allocation=erk"])
    assert str(error.value) == (
        "allocation=erk makes no sense with method=random scope=global, where scores decide the allocation: "
        "set scope=layer"
    )
