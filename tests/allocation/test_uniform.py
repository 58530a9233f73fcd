from math import prod

import pytest

from dstrun.allocation.uniform import Uniform
from dstrun.system.trouble import ConfigError

SHAPES = [(4, 5), (10, 2, 3, 3), (10, 4)]


def test_by_hand():
    assert Uniform(dense_first=False).counts(SHAPES, 0.9) == [2, 18, 4]


def test_first_layer_dense_others_at_the_density():
    assert Uniform(dense_first=True).counts(SHAPES, 0.9) == [20, 18, 4]


def test_fractions_of_a_connection_go_where_most_is_missing():
    # Shares 1.05, 5.25, 8.7 of 15.
    assert Uniform(dense_first=False).counts([(1, 7), (5, 7), (2, 29)], 0.85) == [1, 5, 9]


def test_a_network_of_one_layer_stays_dense():
    assert Uniform(dense_first=True).counts([(10, 64)], 0.9) == [640]


@pytest.mark.parametrize(("sparsity", "fraction"), [(0.8, 0.2231), (0.9, 0.1260), (0.95, 0.0774)])
def test_share_of_dense_flops_of_resnet50(network, sparsity, fraction):
    # Evci et al. 2020 publish 0.23, 0.13, 0.08.
    assert network("resnet50").flops(Uniform(dense_first=True), sparsity) == pytest.approx(fraction, abs=6e-5)


def test_total_with_a_dense_first_layer(network):
    first, *rest = [prod(shape) for shape in network("resnet56").shapes]
    counts = Uniform(dense_first=True).counts(network("resnet56").shapes, 0.98)
    assert sum(counts) == first + round(0.02 * sum(rest))


def test_too_sparse_is_refused():
    with pytest.raises(ConfigError, match=r"^sparsity=0\.999 leaves 0 of 240 connections to 3 layers"):
        Uniform(dense_first=False).counts(SHAPES, 0.999)
