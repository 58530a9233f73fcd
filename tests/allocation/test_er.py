import pytest

from dstrun.allocation.er import ER


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
