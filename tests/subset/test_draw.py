from itertools import permutations

import pytest
import torch
from scipy.stats import chisquare, norm

from dstrun.subset import draw as module
from dstrun.subset.draw import FLOOR, _Pairs, draw

ONE = (torch.tensor([[1.0, 3.0, 0.5]]), torch.tensor([2.0, 1.0]), (2, 3), {1}, 1)
PEAKED = (torch.tensor([[1.0, 3.0, 300.0]]), torch.tensor([2.0, 1.0]), (2, 3), {1}, 1)
GROUPED = (torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([2.0, 1.0, 1.5, 0.5]), (4, 2), {0, 7}, 2)
CASES = pytest.mark.parametrize(
    ("f", "g", "shape", "blocked", "groups"), [ONE, PEAKED, GROUPED], ids=["one group", "peaked", "grouped"]
)


def probabilities(f, g):
    """Give p(o, i) over flat positions, by the definition: g[o] f[group(o), i], both with their floor."""
    f, g = (w.double() + FLOOR * w.double().mean() for w in (f, g))
    rows = [g[o] * f[o * f.shape[0] // len(g)] for o in range(len(g))]
    weights = torch.cat(rows)
    return (weights / weights.sum()).tolist()


def successive(p, free, count):
    """Enumerate successive sampling without replacement: the probability of every sequence of distinct positions."""
    law = {}
    for sequence in permutations(free, count):
        left, chance = sum(p[i] for i in free), 1.0
        for position in sequence:
            chance *= p[position] / left
            left -= p[position]
        law[sequence] = chance
    return law


def check_law(law, sample, draws=5000):
    """Compare how often each sequence comes with its probability; rare ones share a cell."""
    counts = dict.fromkeys(law, 0)
    for _ in range(draws):
        counts[tuple(sample())] += 1  # a sequence the law does not know is an error
    common = [s for s, chance in law.items() if chance * draws >= 8]
    observed = [counts[s] for s in common]
    expected = [law[s] * draws for s in common]
    if len(common) < len(law):
        observed.append(draws - sum(observed))
        expected.append(draws - sum(expected))
    assert len(observed) > 5
    assert chisquare(observed, expected, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("rounds", [module.ROUNDS, 0], ids=["rejection", "rest"])
@CASES
def test_exact_is_successive_sampling_among_the_inactive(
    f, g, shape, blocked, groups, rounds, exploration, monkeypatch
):
    monkeypatch.setattr(module, "ROUNDS", rounds)
    asked = exploration(shape, blocked, groups)
    free = [i for i in range(shape[0] * shape[1]) if i not in blocked]
    law = successive(probabilities(f, g), free, 3)
    check_law(law, lambda: draw(f, g, asked, 3, exact=True).tolist())


def test_rejection_leaves_the_rest_to_the_conditional_law(exploration, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)
    f, g, shape, blocked, groups = PEAKED
    f = f * torch.tensor([1, 1, 100])  # 19 draws seldom find three of five
    asked, rest, left = exploration(shape, blocked, groups), _Pairs.rest, []

    def counted(self, taken, count, generator):
        left.append(count)
        return rest(self, taken, count, generator)

    monkeypatch.setattr(_Pairs, "rest", counted)
    law = successive(probabilities(f, g), [0, 2, 3, 4, 5], 3)
    check_law(law, lambda: draw(f, g, asked, 3, exact=True).tolist())
    assert set(left) == {1, 2}


def test_rest_goes_over_blocks_with_the_same_law():
    f, g, _, _, _ = GROUPED
    pairs, taken, generator = _Pairs(f, g), torch.tensor([0, 7]), torch.Generator().manual_seed(0)
    law = successive(probabilities(f, g), [1, 2, 3, 4, 5, 6], 2)
    check_law(law, lambda: pairs.rest(taken, 2, generator, block=2).tolist())


@CASES
def test_single_draws_once_with_replacement_and_drops_repeats_and_blocked(f, g, shape, blocked, groups, exploration):
    asked, draws, wanted = exploration(shape, blocked, groups), 4000, 4
    p = probabilities(f, g)
    found = torch.zeros(len(p), dtype=torch.double)
    for _ in range(draws):
        positions = draw(f, g, asked, wanted, exact=False)
        assert positions.unique().numel() == positions.numel() <= wanted
        found[positions] += 1
    assert not found[list(blocked)].any()
    expected = torch.tensor([0.0 if i in blocked else 1 - (1 - chance) ** wanted for i, chance in enumerate(p)])
    variance = (expected * (1 - expected)).clamp(min=1e-12) / draws
    assert ((found / draws - expected) / variance.sqrt()).abs().max() < norm.isf(1e-3 / 2 / len(p))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("scale", "f_is_zero"), [(1, True), (1, False), (1e-30, True), (1e-30, False)])
def test_where_one_factor_is_zero_the_other_still_decides(exploration, exact, scale, f_is_zero):
    f, g = torch.zeros(1, 3), torch.tensor([2.0, 1.0]) * scale
    if not f_is_zero:
        f, g = torch.tensor([[1.0, 3.0, 0.5]]) * scale, torch.zeros(2)
    p = probabilities(*(w / scale if w.any() else torch.ones_like(w) for w in (f, g)))
    asked = exploration((2, 3))
    if exact:
        check_law(successive(p, range(6), 2), lambda: draw(f, g, asked, 2, exact=True).tolist())
    else:
        counts = torch.zeros(6)
        for _ in range(4000):
            counts[draw(f, g, asked, 1, exact=False)] += 1
        assert chisquare(counts, 4000 * torch.tensor(p)).pvalue > 1e-3


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("f", "g"),
    [
        (torch.zeros(1, 3), torch.zeros(2)),
        (torch.tensor([[1.0, float("nan"), 1.0]]), torch.tensor([1.0, 2.0])),
        (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([float("inf"), 2.0])),
    ],
    ids=["zero", "nan", "inf"],
)
def test_without_any_information_the_draw_is_uniform(exploration, f, g, exact):
    asked = exploration((2, 3), {4})
    counts, drawn = torch.zeros(6), 0
    for _ in range(2000):
        positions = draw(f, g, asked, 2, exact=exact)
        counts[positions] += 1
        drawn += positions.numel()
    assert counts[4] == 0
    # Inclusions within a draw exclude each other, so that the statistic lies below its chi-square law, if anything.
    assert chisquare(counts[[0, 1, 2, 3, 5]], torch.full((5,), drawn / 5)).pvalue > 1e-3
    assert drawn == 4000 if exact else drawn < 4000


@pytest.mark.parametrize("wanted", [5, 9])
def test_all_inactive_where_as_many_or_more_are_wanted(exploration, wanted):
    f, g, shape, _, _ = ONE
    found = draw(f, g, exploration(shape, {1}), wanted, exact=True)
    assert sorted(found.tolist()) == [0, 2, 3, 4, 5]


def test_nothing_is_found_in_a_dense_layer(exploration):
    f, g, shape, _, _ = ONE
    for exact in (True, False):
        assert draw(f, g, exploration(shape, set(range(6))), 3, exact=exact).tolist() == []


def test_truncation_does_not_favour_low_positions(exploration):
    # Of 1000 slightly unequal positions 10 are drawn; sorted before they are cut, their mean would be far below.
    f = 1 + torch.arange(100.0)[None] % 2 / 100
    asked = exploration((10, 100), {0, 999})
    means = torch.stack([draw(f, torch.ones(10), asked, 10, exact=True).double().mean() for _ in range(400)])
    assert abs(means.mean() - 499.5) / (1000 / 12**0.5 / 4000**0.5) < 4


@pytest.mark.parametrize(("f", "g"), [(torch.ones(1, 1), torch.rand(40)), (torch.rand(40, 1), torch.rand(40))])
def test_layers_of_one_input_and_depthwise_convolutions(exploration, f, g):
    found = draw(f, g, exploration((40, 1), {3, 39}, groups=f.shape[0]), 20, exact=True)
    assert found.unique().numel() == 20
    assert not set(found.tolist()) & {3, 39}


def test_a_layer_too_large_for_a_matrix(exploration):
    side = 1_000_000
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.rand(side, generator=generator) for _ in range(2))
    blocked = torch.randint(side * side, (10_000,), generator=generator).unique().tolist()
    found = draw(f[None], g, exploration((side, side), blocked), 10_000, exact=True)
    assert found.unique().numel() == 10_000
    # Drawn by weight: E[f] under p ~ f is E[f^2] / E[f] = 2/3, its variance E[f^3] / E[f] - 4/9 = 1/18.
    for factor in (f[found % side], g[found // side]):
        assert abs(factor.mean() - 2 / 3) < 5 * (1 / 18 / 10_000) ** 0.5


def test_a_weight_that_dwarfs_all_others_does_not_swallow_them(exploration):
    # One of a million inputs, or outputs, has 99.9 % of the weight; the floor leaves 1e-9 to each of the others.
    many, one = torch.ones(1_000_000), torch.ones(2)
    many[0] = 1e12
    for ends in (_Pairs(many[None], one).i_ends, _Pairs(one[None], many).o_ends):
        shares = ends[:-1].diff() / ends[-1]  # rounding of the sum falls on the last
        torch.testing.assert_close(shares, torch.full_like(shares, 1e-9), rtol=2e-3, atol=0)
    found = draw(many[None], one, exploration((2, 1_000_000)), 100_000, exact=False)
    assert abs(int((found % 1_000_000 != 0).sum()) - 100) < 50
