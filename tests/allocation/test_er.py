import math

import pytest
import torch

from dstrun.allocation.er import ER
from dstrun.layer.interface import prunable
from dstrun.model.vgg import VGG16


def test_by_hand():
    # Neurons: 4 + 6 = 10 and 10 + 2 * 3 * 3 = 28; 76 of 204 connections in that proportion are 20 and 56.
    assert ER(flatten="fan_in").counts([(4, 6), (10, 2, 3, 3)], 1 - 76 / 204) == [20, 56]


@pytest.mark.parametrize(
    ("model", "layer", "density"),
    [
        ("resnet56", "conv1", 0.0852),
        ("resnet56", "layer1.0.conv1", 0.0594),
        ("resnet56", "layer3.8.conv2", 0.0149),
        ("resnet56", "fc", 0.0989),
        ("vgg16_small", "features.0", 0.2146),
        ("vgg16_small", "classifier.3", 0.0084),
        ("vit", "embed.1", 0.1102),
        ("vit", "blocks.0.attention.qkv", 0.0136),
        ("vit", "head.1", 0.4931),
    ],
)
def test_densities_at_98_percent(network, model, layer, density):
    # A count is whole, and so off the formula by up to one connection: 1/432 in resnet56's conv1.
    assert network(model).densities(ER(flatten="fan_in"), 0.98)[layer] == pytest.approx(density, abs=0.0013)


@pytest.mark.parametrize(
    ("model", "fractions"),
    [
        ("resnet56", {0.9: 0.176, 0.95: 0.088, 0.98: 0.035}),
        ("vgg16_small", {0.9: 0.271, 0.95: 0.136, 0.98: 0.054}),
        ("vit", {0.9: 0.099, 0.95: 0.049, 0.98: 0.0194}),
        ("resnet50", {0.8: 0.464, 0.9: 0.249, 0.95: 0.1245}),
    ],
)
def test_share_of_dense_flops(network, model, fractions):
    for sparsity, fraction in fractions.items():
        assert network(model).flops(ER(flatten="fan_in"), sparsity) == pytest.approx(fraction, abs=0.0006)


FIGURE_9 = {
    0: 1.48, 1: 7.23, 2: 7.41, 3: 14.13, 4: 15.06, 5: 28.63, 7: 29.89, 8: 57.5, 9: 57.5, 10: 57.5, 11: 57.5, 12: 57.5,
    13: 51.29, 14: 128.5, 15: 22.88,
}  # fmt: skip
"""Connections over active ones by layer: Heddes et al. 2024, supplement, figure 9, VGG-16-small at 98 %, static."""


def compression(rule: ER) -> list[float]:
    """Return N / A of every layer of VGG-16-small at 98 %, the mean over CIFAR-10 and CIFAR-100 as in the figure."""
    found = []
    for classes in (10, 100):
        with torch.device("meta"):
            shapes = [tuple(layer.weight.shape) for _, layer in prunable(VGG16(base=16).build((3, 32, 32), classes))]
        found.append([math.prod(n) / a for n, a in zip(shapes, rule.counts(shapes, 0.98), strict=True)])
    return [sum(pair) / 2 for pair in zip(*found, strict=True)]


def test_fan_out_is_that_of_the_published_figure(network):
    ours, other = compression(ER(flatten="fan_out")), compression(ER(flatten="fan_in"))
    assert {at: ours[at] for at in FIGURE_9} == pytest.approx(FIGURE_9, rel=0.025)
    assert max(abs(other[at] / read - 1) for at, read in FIGURE_9.items()) > 2
    assert network("vgg16_small").flops(ER(flatten="fan_out"), 0.98) == pytest.approx(0.0660, abs=5e-5)


def test_both_readings_agree_on_linear_layers():
    shapes = [(4, 6), (10, 4), (3, 10)]
    assert ER(flatten="fan_in").counts(shapes, 0.5) == ER(flatten="fan_out").counts(shapes, 0.5)
