import math
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dstrun.layer.topology import (
    Topology,
    contains,
    draw_distinct,
    draw_sorted,
    first_of_each,
    inactive,
    merged,
    number_type,
    others,
    without,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(*[st.integers(1, 4)] * 4),
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_random_has_the_exact_count_sorted_and_unique(shape, share, seed):
    size = math.prod(shape)
    topology = Topology.random(shape, round(share * size), seeded(seed))
    positions = topology.positions.tolist()
    assert topology.count == round(share * size) == len(positions)
    assert positions == sorted(set(positions))
    assert set(positions) <= set(range(size))
    assert (topology.size, topology.density) == (size, topology.count / size)


@pytest.mark.parametrize(("size", "count"), [(7, 2), (5, 3)], ids=["rejection", "permutation"])
def test_draw_distinct_gives_every_ordered_selection_equally_often(size, count):
    generator = seeded(1)
    cells = {cell: 0 for cell in permutations(range(size), count)}
    for _ in range(100 * len(cells)):
        cells[tuple(draw_distinct(size, count, generator).tolist())] += 1
    assert chisquare(list(cells.values())).pvalue > 1e-3


def test_random_topologies_are_uniform_over_subsets():
    generator = seeded(2)
    cells = {cell: 0 for cell in combinations(range(6), 3)}
    for _ in range(4000):
        cells[tuple(Topology.random((2, 3), 3, generator).positions.tolist())] += 1
    assert chisquare(list(cells.values())).pvalue > 1e-3


@pytest.mark.parametrize(("size", "count"), [(4, 5), (4, -1)])
def test_no_more_can_be_drawn_than_there_are(size, count):
    with pytest.raises(ValueError, match=f"cannot draw {count} of {size}"):
        draw_distinct(size, count, seeded(0))


def test_a_layer_too_large_to_store_densely():
    topology = Topology.random((1_000_000, 1_000_000), 100_000, seeded(3))
    assert topology.count == 100_000
    assert bool((topology.positions[1:] > topology.positions[:-1]).all())
    # Uniform on [0, N): mean N / 2, standard error N / sqrt(12 A).
    z = (topology.positions.double().mean() / 1e12 - 0.5) * math.sqrt(12 * 100_000)
    assert abs(z) < 4
    grown = inactive(topology.positions, draw_distinct(topology.size - topology.count, 1000, seeded(4)))
    assert not bool(contains(topology.positions, grown).any())
    assert topology.rewired(topology.positions[:1000], grown).count == 100_000


@given(
    size=st.integers(1, 30),
    blocked=st.sets(st.integers(0, 29)),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_inactive_names_the_free_positions_in_order(size, blocked, order):
    blocked = sorted(b for b in blocked if b < size)
    free = [p for p in range(size) if p not in blocked]
    ranks = list(range(len(free)))
    order.shuffle(ranks)
    found = inactive(torch.tensor(blocked, dtype=torch.int64), torch.tensor(ranks, dtype=torch.int64))
    assert found.tolist() == [free[r] for r in ranks]


@given(known=st.sets(st.integers(0, 40)), query=st.lists(st.integers(0, 40)))
@settings(deadline=None)
def test_contains(known, query):
    found = contains(torch.tensor(sorted(known), dtype=torch.int64), torch.tensor(query, dtype=torch.int64))
    assert found.tolist() == [q in known for q in query]


@given(size=st.integers(2, 3000), share=st.floats(0, 0.5), seed=st.integers(0, 9))
@settings(deadline=None)
def test_sorted_draws_are_the_same_connections(size, share, seed):
    count = int(share * size)
    found = draw_sorted(size, count, seeded(seed))
    assert torch.equal(found, draw_distinct(size, count, seeded(seed)).sort().values)


@given(codes=st.lists(st.integers(0, 12)))
@settings(deadline=None)
def test_first_of_each_keeps_the_order_drawn(codes):
    assert first_of_each(torch.tensor(codes, dtype=torch.int64)).tolist() == list(dict.fromkeys(codes))


def topology(*positions):
    return Topology((2, 4), torch.tensor(positions))


def test_fan_in_counts_the_active_inputs_of_every_output():
    assert topology(0, 3, 4).fan_in().tolist() == [2, 1]
    assert Topology((3, 2, 1, 2), torch.tensor([0, 1, 3, 11])).fan_in().tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("prune", "grow", "left"),
    [
        ([1, 4], [7, 0], [0, 5, 7]),
        ([], [], [1, 4, 5]),
        ([5], [], [1, 4]),
        ([], [2], [1, 2, 4, 5]),
        ([5, 1, 4], [3, 2, 0], [0, 2, 3]),
    ],
)
def test_rewired(prune, grow, left):
    before = topology(1, 4, 5)
    after = before.rewired(torch.tensor(prune, dtype=torch.int64), torch.tensor(grow, dtype=torch.int64))
    assert after.positions.tolist() == left
    assert after.shape == before.shape
    assert before.positions.tolist() == [1, 4, 5]


@pytest.mark.parametrize(
    ("prune", "grow", "message"),
    [
        ([0], [2], "a pruned connection was not active"),
        ([1, 1], [2, 3], "a pruned connection was not active, or was named twice"),
        ([1], [4], "a grown connection was already active"),
        ([1, 4], [2, 2], "a grown connection was already active, or was named twice"),
    ],
)
def test_rewired_refuses(prune, grow, message):
    with pytest.raises(ValueError, match=message):
        topology(1, 4, 5).rewired(torch.tensor(prune), torch.tensor(grow))


@given(one=st.sets(st.integers(0, 40)), other=st.sets(st.integers(0, 40)), order=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_merged_and_without(one, other, order):
    shuffled = list(other)
    order.shuffle(shuffled)
    sorted_one, sorted_other, any_other = (
        torch.tensor(x, dtype=torch.int64) for x in (sorted(one), sorted(other), shuffled)
    )
    assert merged(sorted_one, sorted_other).tolist() == sorted([*one, *other])
    assert without(sorted_one, any_other).tolist() == sorted(one - other)
    both = torch.tensor([x for x in shuffled if x in one], dtype=torch.int64)
    assert sorted_one[others(sorted_one, both)].tolist() == sorted(one - other)


def test_a_nearly_full_topology_needs_random_numbers_for_the_inactive_alone(monkeypatch):
    monkeypatch.setattr(torch, "randperm", None)
    topology = Topology.random((100, 100), 9_990, seeded(0))
    assert topology.count == 9_990
    assert Topology.random((3, 4), 12, seeded(0)).positions.tolist() == list(range(12))


def test_connections_are_numbered_by_the_smallest_type():
    assert [number_type(n) for n in (0, (1 << 31) - 1, 1 << 31)] == [torch.int32, torch.int32, torch.int64]
