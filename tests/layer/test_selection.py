import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrun.layer import selection
from dstrun.layer.selection import highest, lowest

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SCORE = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-30, math.inf, -math.inf, math.nan])


def ranked(scores, excluded, sign):
    """Order indices by the definition: best first, what is no number as bad as can be, equal ones by index."""

    def key(index):
        score = sign * scores[index]
        return (-(-math.inf if math.isnan(score) else score), index)

    return sorted((i for i in range(len(scores)) if i not in excluded), key=key)


@given(
    scores=st.lists(st.one_of(SCORE, st.floats(width=16)), max_size=40),
    excluded=st.sets(st.integers(0, 39)),
    dtype=st.sampled_from(TYPES),
    block=st.sampled_from([1, 3, 1 << 18]),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_the_order_is_by_score_then_by_index(scores, excluded, dtype, block, data):
    given_ = torch.tensor(scores, dtype=dtype)
    excluded = sorted(e for e in excluded if e < len(scores))
    count = data.draw(st.integers(0, len(scores) - len(excluded)))
    out = data.draw(st.sampled_from([torch.tensor(excluded, dtype=torch.int64)] + [None] * (not excluded)))
    before, selection.BLOCK = selection.BLOCK, block
    try:
        for choose, sign in ((highest, 1), (lowest, -1)):
            found = choose(given_, count, out)
            assert found.dtype == torch.int64
            assert found.tolist() == ranked(given_.tolist(), excluded, sign)[:count]
    finally:
        selection.BLOCK = before


def test_float64_is_ranked_as_float64():
    scores = torch.tensor([1.0, 1.0 + 1e-12, 1.0 - 1e-12], dtype=torch.float64)
    assert highest(scores, 3).tolist() == [1, 0, 2]
    assert lowest(scores, 3).tolist() == [2, 0, 1]


def test_a_score_that_is_no_number_is_never_before_one_that_is():
    scores = torch.tensor([math.nan, 3.0, -math.nan, -1e30, 0.0])
    for dtype in (torch.float32, torch.float64):
        assert highest(scores.to(dtype), 3).tolist() == [1, 4, 3]
        assert lowest(scores.to(dtype), 3).tolist() == [3, 4, 1]


@pytest.mark.parametrize("count", [0, 1, 1000, 300_000, 1_000_000])
@pytest.mark.parametrize("levels", [3, 1 << 20])
def test_many_scores_with_many_ties(count, levels):
    scores = torch.randint(levels, (1_000_000,), generator=torch.Generator().manual_seed(0)).float()
    scores = scores / levels  # neighbours are closer than 1
    expected = scores.sort(descending=True, stable=True).indices[:count]
    assert torch.equal(highest(scores, count), expected)
    excluded = expected[: count // 2].sort().values
    left = min(count - count // 2, 500)
    assert torch.equal(highest(scores, left, excluded), expected[count // 2 :][:left])
