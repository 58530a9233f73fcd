from itertools import permutations

import pytest
import torch
from scipy.stats import beta, chisquare, ks_2samp, kstest

from dstrun.grow.random import Random
from dstrun.layer.criterion import Cost
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.growth import GrowthContext, best


def context(blocked, limit, generator, shape=(3, 4)):
    return GrowthContext(
        LinearGeometry(shape), len(blocked), torch.tensor(blocked, dtype=torch.int64), limit, generator
    )


def propose(asked):
    criterion = Random()
    positions = criterion.candidates(asked)
    return best(criterion.score(None, positions, asked), positions, asked)


@pytest.fixture(scope="module")
def proposals():
    generator = torch.Generator().manual_seed(0)
    return [propose(context([0, 3, 4, 11, 8], 3, generator)) for _ in range(4000)]


def test_scores_are_the_highest_order_statistics_of_all_inactive(proposals):
    scores = torch.stack([p.scores for p in proposals]).exp()
    assert bool((scores[:, 1:] <= scores[:, :-1]).all())
    # The j-th largest of n uniforms is Beta(n - j, j + 1) distributed, n = 7.
    for j in range(3):
        assert kstest(scores[:, j].numpy(), beta(7 - j, j + 1).cdf).pvalue > 1e-3


def test_scores_have_the_joint_law_of_sorted_uniforms(proposals):
    scores = torch.stack([p.scores for p in proposals]).double().exp()
    generator = torch.Generator().manual_seed(1)
    brute = torch.rand(4000, 7, generator=generator, dtype=torch.double).sort(1, descending=True).values[:, :3]
    for summary in (lambda s: s.sum(1), lambda s: s[:, 0] - s[:, 1], lambda s: s[:, 1] - s[:, 2]):
        assert ks_2samp(summary(scores), summary(brute)).pvalue > 1e-3


def test_positions_are_uniform_among_the_inactive_in_every_order():
    generator = torch.Generator().manual_seed(2)
    counts = {cell: 0 for cell in permutations([1, 2, 5, 6, 7, 9, 10], 2)}
    for _ in range(4200):
        counts[tuple(propose(context([0, 3, 4, 8, 11], 2, generator)).positions.tolist())] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(("limit", "blocked", "count"), [(0, [1], 0), (3, list(range(12)), 0), (9, list(range(7)), 5)])
def test_no_more_than_the_limit_and_than_there_are(limit, blocked, count):
    found = propose(context(blocked, limit, torch.Generator().manual_seed(0)))
    assert found.positions.numel() == found.scores.numel() == count
    assert not set(found.positions.tolist()) & set(blocked)


def test_a_large_layer_is_cheap_and_its_scores_keep_apart():
    found = propose(context([5], 1000, torch.Generator().manual_seed(0), (1_000_000, 1_000_000)))
    assert found.scores.dtype == torch.float  # an accelerator may know no other
    assert found.scores.unique().numel() == 1000
    assert found.scores[-1].item() == pytest.approx(-1e-9, rel=0.2)


def test_it_needs_no_gradient():
    assert (Random.cost, Random.regrow, Random.aggregates) == (Cost.NONE, True, False)
