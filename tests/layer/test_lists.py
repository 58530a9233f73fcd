import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrun.layer import lists
from dstrun.layer.topology import Topology

some = st.sets(st.integers(0, 40)).map(sorted)


def array(entries):
    return np.array(entries, np.int64)


@given(entries=st.lists(st.integers(0, 9), max_size=6))
@settings(deadline=None)
def test_rises_where_each_is_above_the_one_before(entries):
    assert lists.rises(array(entries)) == (entries == sorted(set(entries)))


@given(one=some, other=some)
@settings(deadline=None)
def test_union_names_what_is_in_both_once(one, other):
    both = np.empty(len(one) + len(other), np.int64)
    count = lists.union(array(one), array(other), both)
    assert both[:count].tolist() == sorted({*one, *other})


@given(positions=some, factor=st.integers(1, 7))
@settings(deadline=None)
def test_multiples(positions, factor):
    found = np.empty(len(positions), np.int32)
    count = lists.multiples(array(positions), factor, found)
    assert found[:count].tolist() == [position for position in positions if position % factor == 0]


@given(blocked=some, first=st.integers(0, 50))
@settings(deadline=None)
def test_gaps_are_what_is_not_blocked(blocked, first):
    expected = [number for number in range(41) if number not in blocked]
    found = np.empty(len(expected), np.int64)
    lists.gaps(array(blocked) + first, first, found)
    assert found.tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 50_000])
def test_rewired_equals_sets(count):
    draws = torch.Generator().manual_seed(count)
    before = Topology.random((400, 500), count, draws)
    pruned = before.positions[torch.rand(count, generator=draws) < 0.3]
    free = torch.ones(before.size, dtype=torch.bool).index_fill_(0, before.positions, False).nonzero().flatten()
    grown = free[torch.randperm(free.numel(), generator=draws)[: pruned.numel()]]
    after = before.rewired(pruned[torch.randperm(pruned.numel(), generator=draws)], grown)
    stays = before.positions[~torch.isin(before.positions, pruned)]
    assert torch.equal(after.positions, torch.cat([stays, grown]).sort().values)
