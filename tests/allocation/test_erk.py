import pytest

from dstrun.allocation.erk import ERK
from dstrun.allocation.uniform import Uniform
from dstrun.system.trouble import ConfigError


def test_by_hand():
    # Sums of the shapes: 4 + 6 = 10 and 10 + 2 + 3 + 3 = 18; 56 of 204 connections in that proportion are 20 and 36.
    assert ERK().counts([(4, 6), (10, 2, 3, 3)], 1 - 56 / 204) == [20, 36]


def test_power_by_hand():
    # Raw densities 6/4 and 12/32, squared 9/4 and 9/64; times the sizes 4 and 32 that is 9 and 9/2, two to one.
    shapes, sparsity = [(2, 2, 1, 1), (8, 4)], 1 - 6 / 36
    assert ERK(power=2).counts(shapes, sparsity) == [4, 2]
    assert ERK(power=1).counts(shapes, sparsity) == [2, 4]


def test_power_zero_is_uniform(network):
    shapes = network("resnet56").shapes
    assert ERK(power=0).counts(shapes, 0.9) == Uniform(dense_first=False).counts(shapes, 0.9)


@pytest.mark.parametrize(
    ("model", "layer", "density"),
    [
        ("resnet56", "conv1", 0.2230),
        ("resnet56", "layer1.0.conv1", 0.0635),
        ("resnet56", "layer3.8.conv2", 0.0140),
        ("resnet56", "fc", 0.4455),
        ("vgg16_small", "features.0", 0.3410),
        ("vgg16_small", "classifier.3", 0.0230),
    ],
)
def test_densities_at_98_percent(network, model, layer, density):
    assert network(model).densities(ERK(), 0.98)[layer] == pytest.approx(density, abs=0.0013)


def test_densities_of_resnet50(network):
    at_80 = network("resnet50").densities(ERK(), 0.8)
    dense = [name for name, density in at_80.items() if density == 1]
    assert len(dense) == 8
    assert all("conv1" in name or "conv3" in name or "downsample" in name for name in dense)  # the 1x1 ones
    assert at_80["conv1"] == pytest.approx(0.857, abs=5e-4)
    assert at_80["fc"] == pytest.approx(0.148, abs=5e-4)
    at_90 = network("resnet50").densities(ERK(), 0.9)
    assert [name for name, density in at_90.items() if density == 1] == ["layer1.0.conv1"]
    assert at_90["conv1"] == pytest.approx(0.420, abs=5e-4)
    assert at_90["fc"] == pytest.approx(0.0726, abs=5e-5)


@pytest.mark.parametrize(("sparsity", "fraction"), [(0.8, 0.4138), (0.9, 0.2418), (0.95, 0.1217)])
def test_share_of_dense_flops_of_resnet50(network, sparsity, fraction):
    # Evci et al. 2020 publish 0.42, 0.24, 0.12.
    assert network("resnet50").flops(ERK(), sparsity) == pytest.approx(fraction, abs=6e-5)


def test_a_negative_power_is_refused():
    with pytest.raises(ConfigError, match=r"^allocation\.power=-1 must be in \[0, 10\]$"):
        ERK(power=-1)
