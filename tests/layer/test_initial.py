import copy

import pytest
import torch
from scipy.stats import kstest

from dstrun.backend.masked import layer as masked
from dstrun.config.composition import compose
from dstrun.layer.initial import bound, initial_bias, initial_values, scale_by_fan_in
from dstrun.layer.topology import Topology
from dstrun.run.assemble import assemble
from dstrun.system.stream import generator
from dstrun.system.trouble import ConfigError

# Fan-in 0, 1, 3 and 4.
TOPOLOGY = Topology((4, 4), torch.tensor([5, 8, 9, 11, 12, 13, 14, 15]))


def test_bound_is_that_of_the_active_inputs():
    torch.testing.assert_close(bound(TOPOLOGY), torch.tensor([3.0, 3.0, 1.0, 0.75]).sqrt())


def test_weights_are_uniform_within_the_bound_of_their_output():
    stream = generator(0, "weights")
    values = torch.stack([initial_values(TOPOLOGY, stream) for _ in range(3000)])
    limits = torch.tensor([3, 1, 1, 1, 0.75, 0.75, 0.75, 0.75]).sqrt()
    assert values.shape == (3000, 8)
    for column, limit in zip(values.T, limits, strict=True):
        assert kstest((column / limit).numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    # Var = 1 / fan-in: 1, 1/3, 1/4.
    torch.testing.assert_close(values.var(0), limits**2 / 3, rtol=0.1, atol=0)


def test_biases_are_uniform_within_the_same_bounds():
    stream = generator(0, "bias")
    values = torch.stack([initial_bias(TOPOLOGY, stream) for _ in range(3000)])
    assert values.shape == (3000, 4)
    for column, limit in zip(values.T, bound(TOPOLOGY), strict=True):
        assert kstest((column / limit).numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.parametrize("count", [1024, 10_000])
def test_a_convolution_counts_active_connections_of_its_whole_kernel(count):
    topology = Topology.random((64, 32, 3, 3), count, generator(0, "topology"))
    values = initial_values(topology, generator(0, "weights"))
    unit = topology.positions // 288
    fan_in = torch.bincount(unit, minlength=64)[unit]
    scaled = values * fan_in.sqrt()
    assert bool((scaled.abs() <= 3**0.5 + 1e-6).all())
    assert scaled.var().item() == pytest.approx(1, abs=5 * (0.8 / count) ** 0.5)  # Var(U^2) / Var(U)^2 = 4/5


def test_a_dense_network_may_start_as_a_sparse_one_with_every_connection():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3), torch.nn.BatchNorm2d(64), torch.nn.Flatten(), torch.nn.Linear(64, 64)
    )
    scale_by_fan_in(net, seed=3)
    for layer, fan_in in ((net[0], 27), (net[3], 64)):
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)
        assert layer.weight.abs().max() <= (3 / fan_in) ** 0.5
        assert layer.bias.abs().max() <= (3 / fan_in) ** 0.5
    assert net[1].weight.eq(1).all()
    dense = masked.sparsify(copy.deepcopy(net), [27 * 64, 64 * 64], seed=3)
    assert torch.equal(dense[0].values(), net[0].weight.flatten())


def test_dense_starts_alone_have_a_choice_of_initialization():
    words = ["model=mlp", "dataset=digits", "sparsity=0.9", "initialization=fan_in"]
    with pytest.raises(ConfigError, match="initialization=fan_in makes no sense with method=gse, which always uses it"):
        compose(["method=gse", *words])
    layers = assemble(compose(["method=snip", *words]), torch.device("cpu")).layers
    assert layers[0].values().std().item() == pytest.approx(64**-0.5, rel=0.05)
