import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dstrun.method.dynamic.drawing import barred, draw
from dstrun.system.stream import generator


def positions(*numbers):
    return torch.tensor(numbers, dtype=torch.int64)


@st.composite
def layers(draw):
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    blocked = [sorted(draw(st.sets(st.integers(0, size - 1)))) for size in sizes]
    free = sum(sizes) - sum(map(len, blocked))
    return sizes, [positions(*b) for b in blocked], draw(st.integers(0, free)), draw(st.integers(0, 99))


@given(layers())
def test_as_many_as_asked_none_blocked_none_twice(case):
    sizes, blocked, count, seed = case
    drawn = draw(sizes, blocked, count, generator(seed))
    assert sum(d.numel() for d in drawn) == count
    for size, out, new in zip(sizes, blocked, drawn, strict=True):
        assert new.tolist() == sorted(set(new.tolist()) - set(out.tolist()))
        assert set(new.tolist()) <= set(range(size))


def test_every_free_connection_of_every_layer_is_as_likely():
    counts = torch.zeros(7)
    for seed in range(2000):
        one, two = draw([4, 5], [positions(1), positions(4)], 2, generator(seed))
        counts[one - (one > 1).long()] += 1
        counts[3 + two] += 1
    assert counts.sum() == 4000
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_more_than_are_free_is_an_error():
    with pytest.raises(ValueError, match="cannot draw 3 of 2"):
        draw([4], [positions(0, 1)], 3, generator(0))


def test_what_was_just_pruned_returns_only_where_others_are_too_few():
    active, pruned = [positions(0, 1, 2)], [positions(1)]
    assert barred(active, pruned, [4], 1)[0].tolist() == [0, 1, 2]
    assert barred(active, pruned, [4], 2)[0].tolist() == [0, 2]
