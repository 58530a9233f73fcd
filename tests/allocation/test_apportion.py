from fractions import Fraction
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrun.allocation.apportion import apportion
from dstrun.allocation.budget import budget
from dstrun.allocation.er import ER
from dstrun.allocation.erk import ERK
from dstrun.allocation.uniform import Uniform
from dstrun.system.trouble import ConfigError

ALLOCATIONS = [ER(flatten="fan_in"), ERK(), ERK(power=0.5), ERK(power=2), Uniform(dense_first=False)]
sides = st.integers(1, 12)
shapes = st.lists(st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, sides, sides)), min_size=1, max_size=6)
sparsities = st.floats(0, 1, exclude_max=True)


def test_shares_in_proportion():
    assert apportion([1, 2, 1], [100, 100, 200], sparsity=0.9) == [10, 20, 10]


def test_largest_remainder_gets_what_rounding_down_leaves():
    # 40 * (5, 11, 24) / 40 is exact; 41 * (5, 11, 24) / 40 = (5.125, 11.275, 24.6)
    assert apportion([5, 11, 24], [100, 155, 155], sparsity=0.9) == [5, 11, 25]


def test_equal_remainders_go_to_the_earlier_layers():
    assert apportion([1, 1, 1], [5, 5, 5], sparsity=1 - 11 / 15) == [4, 4, 3]


def test_what_a_dense_layer_cannot_take_goes_to_the_others_in_proportion():
    # Shares of 30: (20, 5, 5); the first is full at 6, the other 24 go half and half.
    assert apportion([4, 1, 1], [6, 27, 27], sparsity=0.5) == [6, 12, 12]


def test_a_second_layer_may_become_dense_by_what_the_first_gives():
    # Shares of 40: (24, 8, 8); first full at 4, then (18, 18): second full at 10, the last gets 26.
    assert apportion([3, 1, 1], [4, 10, 66], sparsity=0.5) == [4, 10, 26]


def test_no_layer_is_left_empty():
    # Shares of 10: (0.1, 4.95, 4.95); the first gets 1, the other 9 are halved, the earlier one rounded up.
    assert apportion([2, 99, 99], [20, 40, 40], sparsity=0.9) == [1, 5, 4]


def test_nothing_is_taken_at_sparsity_zero():
    assert apportion([1, 50, 7], [3, 1, 9], sparsity=0) == [3, 1, 9]


def test_as_many_connections_as_layers_gives_one_each():
    assert apportion([1, 50, 7], [10, 10, 10], sparsity=0.9) == [1, 1, 1]


def test_fewer_connections_than_layers_is_refused():
    with pytest.raises(ConfigError) as error:
        apportion([1, 1, 1], [10, 10, 10], sparsity=0.95)
    assert str(error.value) == (
        "sparsity=0.95 leaves 2 of 30 connections to 3 layers, and each needs at least one: "
        "sparsity must be at most 0.9"
    )
    assert apportion([1, 1, 1], [10, 10, 10], sparsity=0.9) == [1, 1, 1]


def evci(weights, sizes, active):
    """Clip as Evci et al. 2020 describe it: make the layer of highest raw density dense, scale the rest anew."""
    dense = set()
    while True:
        rest = [i for i in range(len(sizes)) if i not in dense]
        left = active - sum(sizes[i] for i in dense)
        if not rest:
            return [Fraction(n) for n in sizes]
        scale = Fraction(left) / sum(weights[i] for i in rest)
        over = [i for i in rest if scale * weights[i] > sizes[i]]
        if not over:
            return [Fraction(sizes[i]) if i in dense else scale * weights[i] for i in range(len(sizes))]
        highest = max(Fraction(weights[i]) / sizes[i] for i in over)
        dense |= {i for i in over if Fraction(weights[i]) / sizes[i] == highest}


layers = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 200)), min_size=1, max_size=8)


@given(layers=layers, sparsity=sparsities)
def test_equals_iterative_clipping_within_one_connection(layers, sparsity):
    weights, sizes = [w for w, _ in layers], [n for _, n in layers]
    active = budget(sum(sizes), sparsity)
    if active < len(sizes):
        return
    exact = evci(weights, sizes, active)
    if min(exact) >= 1:
        counts = apportion(weights, sizes, sparsity)
        assert all(abs(count - share) < 1 for count, share in zip(counts, exact, strict=True))


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
@given(shapes=shapes, sparsity=sparsities)
def test_no_connection_is_lost_and_no_layer_empty_or_overfull(allocation, shapes, sparsity):
    sizes = [prod(shape) for shape in shapes]
    active = budget(sum(sizes), sparsity)
    if active < len(shapes):
        with pytest.raises(ConfigError, match="and each needs at least one"):
            allocation.counts(shapes, sparsity)
        return
    counts = allocation.counts(shapes, sparsity)
    assert sum(counts) == active == round((1 - sparsity) * sum(sizes))
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))
    assert all(type(count) is int for count in counts)
    assert counts == allocation.counts(shapes, sparsity)


@pytest.mark.parametrize("allocation", [*ALLOCATIONS, Uniform(dense_first=True)], ids=str)
@given(shapes=shapes, sparsities=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)))
def test_a_higher_sparsity_never_has_more_connections(allocation, shapes, sparsities):
    try:
        dense, sparse = (allocation.counts(shapes, s) for s in sorted(sparsities))
    except ConfigError:
        return
    assert sum(dense) >= sum(sparse)
    # Largest remainder may move single connections the other way, never more.
    assert all(d >= s - 1 for d, s in zip(dense, sparse, strict=True))


@pytest.mark.parametrize("model", ["resnet56", "vgg16_small", "vit", "resnet50"])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95, 0.98, 0.99])
@pytest.mark.parametrize("allocation", [ER(flatten="fan_in"), ERK()], ids=str)
def test_clipping_loses_nothing_in_real_networks(network, model, sparsity, allocation):
    shapes = network(model).shapes
    assert sum(allocation.counts(shapes, sparsity)) == round((1 - sparsity) * sum(map(prod, shapes)))


@pytest.mark.parametrize("rule", [ER, ERK, Uniform])
def test_a_dense_first_layer_comes_on_top_of_the_budget_of_the_others(rule):
    shapes, sides = [(8, 3, 3, 3), (16, 8, 3, 3), (10, 16)], {"flatten": "fan_out"} if rule is ER else {}
    counts = rule(dense_first=True, **sides).counts(shapes, 0.9)
    assert counts == [216, *rule(dense_first=False, **sides).counts(shapes[1:], 0.9)]
    assert sum(counts[1:]) == round(0.1 * (1152 + 160))
