import tracemalloc
from itertools import permutations

import pytest
import torch
from scipy.stats import chisquare, ks_2samp, norm
from torch.profiler import ProfilerActivity, profile

from dstrun.layer.topology import contains
from dstrun.subset import draw as module
from dstrun.subset import rows
from dstrun.subset.draw import FLOOR, _Pairs, draw
from dstrun.subset.rows import alias_tables

ONE = (torch.tensor([[1.0, 3.0, 0.5]]), torch.tensor([2.0, 1.0]), (2, 3), {1}, 1)
PEAKED = (torch.tensor([[1.0, 3.0, 30.0]]), torch.tensor([2.0, 1.0]), (2, 3), {1}, 1)
GROUPED = (torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([2.0, 1.0, 1.5, 0.5]), (4, 2), {0, 7}, 2)
CASES = pytest.mark.parametrize(
    ("f", "g", "shape", "blocked", "groups"), [ONE, PEAKED, GROUPED], ids=["one group", "peaked", "grouped"]
)


@pytest.fixture
def prepared_once(monkeypatch):
    """Have what all draws from the same weights prepare alike, and change nothing of, be made by the first."""

    def first(make):
        made = []
        return lambda *given: made[0] if made else made.append(make(*given)) or made[0]

    for kind in (_Pairs, module._Distinct):
        monkeypatch.setattr(module, kind.__name__, first(kind))


def probabilities(f, g):
    """Return p(o, i) over flat positions, by the definition: g[o] f[group(o), i], both with their floor."""
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


def unordered(law):
    """Return the law of the set of positions drawn, sorted, from that of their sequence."""
    merged = {}
    for sequence, chance in law.items():
        merged[tuple(sorted(sequence))] = merged.get(tuple(sorted(sequence)), 0) + chance
    return merged


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
    assert len(observed) > 2
    assert chisquare(observed, expected, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize(
    ("rounds", "deviations"),
    [(module.ROUNDS, module.DEVIATIONS), (module.ROUNDS, 0), (module.ROUNDS, 0.7), (1, 0), (0, 0)],
    ids=["all timed", "rounds and overshoot", "some timed", "a round and rest", "rest"],
)
@CASES
def test_exact_is_successive_sampling_among_the_inactive(
    f, g, shape, blocked, groups, rounds, deviations, context, monkeypatch, prepared_once
):
    monkeypatch.setattr(module, "ROUNDS", rounds)
    monkeypatch.setattr(module, "DEVIATIONS", deviations)
    monkeypatch.setattr(module, "REACH", 100)
    asked = context(shape, blocked, groups)
    free = [i for i in range(shape[0] * shape[1]) if i not in blocked]
    law = unordered(successive(probabilities(f, g), free, 3))
    check_law(law, lambda: draw(f, g, asked, 3, exact=True).tolist(), draws=4000)


def test_arrivals_that_would_take_too_long_are_left_to_the_conditional_law(context, monkeypatch, prepared_once):
    f, g, shape, blocked, groups = PEAKED
    f = f * torch.tensor([1, 1, 100])  # two of five have nearly all the weight
    asked, rest, left = context(shape, blocked, groups), _Pairs.rest, []

    def counted(self, taken, count, generator):
        left.append(count)
        return rest(self, taken, count, generator)

    monkeypatch.setattr(_Pairs, "rest", counted)
    law = unordered(successive(probabilities(f, g), [0, 2, 3, 4, 5], 3))
    check_law(law, lambda: draw(f, g, asked, 3, exact=True).tolist())
    assert left


def test_rest_goes_over_blocks_with_the_same_law():
    f, g, _, _, _ = GROUPED
    pairs, taken, generator = _Pairs(f, g), torch.tensor([0, 7]), torch.Generator().manual_seed(0)
    law = successive(probabilities(f, g), [1, 2, 3, 4, 5, 6], 2)
    check_law(law, lambda: pairs.rest(taken, 2, generator, block=2).tolist())


@CASES
def test_single_draws_once_with_replacement_and_drops_repeats_and_blocked(
    f, g, shape, blocked, groups, context, prepared_once
):
    asked, draws, wanted = context(shape, blocked, groups), 4000, 4
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
def test_where_one_factor_is_zero_the_other_still_decides(context, exact, scale, f_is_zero, prepared_once):
    f, g = torch.zeros(1, 3), torch.tensor([2.0, 1.0]) * scale
    if not f_is_zero:
        f, g = torch.tensor([[1.0, 3.0, 0.5]]) * scale, torch.zeros(2)
    p = probabilities(*(w / scale if w.any() else torch.ones_like(w) for w in (f, g)))
    asked = context((2, 3))
    if exact:
        check_law(unordered(successive(p, range(6), 2)), lambda: draw(f, g, asked, 2, exact=True).tolist())
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
def test_without_any_information_the_draw_is_uniform(context, f, g, exact, prepared_once):
    asked = context((2, 3), {4})
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
def test_all_inactive_where_as_many_or_more_are_wanted(context, wanted):
    f, g, shape, _, _ = ONE
    found = draw(f, g, context(shape, {1}), wanted, exact=True)
    assert found.tolist() == [0, 2, 3, 4, 5]


def test_nothing_is_found_in_a_dense_layer(context):
    f, g, shape, _, _ = ONE
    for exact in (True, False):
        assert draw(f, g, context(shape, set(range(6))), 3, exact=exact).tolist() == []


def test_truncation_does_not_favour_low_positions(context, prepared_once):
    # Of 1000 slightly unequal positions 10 are drawn; cut by position instead of time, their mean would be far below.
    f = 1 + torch.arange(100.0)[None] % 2 / 100
    asked = context((10, 100), {0, 999})
    means = torch.stack([draw(f, torch.ones(10), asked, 10, exact=True).double().mean() for _ in range(400)])
    assert abs(means.mean() - 499.5) / (1000 / 12**0.5 / 4000**0.5) < 4


@pytest.mark.parametrize(("f", "g"), [(torch.ones(1, 1), torch.rand(40)), (torch.rand(40, 1), torch.rand(40))])
def test_layers_of_one_input_and_depthwise_convolutions(context, f, g):
    found = draw(f, g, context((40, 1), {3, 39}, groups=f.shape[0]), 20, exact=True)
    assert found.unique().numel() == 20
    assert not set(found.tolist()) & {3, 39}


def test_a_layer_too_large_for_a_matrix(context):
    side = 1_000_000
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.rand(side, generator=generator) for _ in range(2))
    blocked = torch.randint(side * side, (10_000,), generator=generator).unique().tolist()
    found = draw(f[None], g, context((side, side), blocked), 10_000, exact=True)
    assert found.unique().numel() == 10_000
    # Drawn by weight: E[f] under p ~ f is E[f^2] / E[f] = 2/3, its variance E[f^3] / E[f] - 4/9 = 1/18.
    for factor in (f[found % side], g[found // side]):
        assert abs(factor.mean() - 2 / 3) < 5 * (1 / 18 / 10_000) ** 0.5


def case(context, shape, active, seed=0, groups=1):
    """Make a layer with so many random blocked positions and uneven weights; and its context."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(groups, shape[1], generator=generator).exp()
    g = torch.randn(shape[0], generator=generator).exp()
    blocked = torch.randperm(shape[0] * shape[1], generator=generator)[:active].tolist()
    return f, g, context(shape, blocked, groups, generator=generator)


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "uneven"])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.8, 0.99])
@pytest.mark.parametrize(("shape", "groups"), [((300, 200), 1), ((40, 1500), 1), ((600, 9), 600), ((60, 100), 3)])
def test_as_many_as_wanted_sorted_distinct_and_free(context, shape, groups, share, flat):
    size = shape[0] * shape[1]
    for seed in range(3):
        f, g, asked = case(context, shape, size // 20, seed, groups)
        f, g = (torch.ones_like(f), torch.ones_like(g)) if flat else (f, g)
        wanted = int(share * asked.free)
        found = draw(f, g, asked, wanted, exact=True)
        assert found.dtype == torch.int64
        assert found.numel() == wanted
        assert bool((found[1:] > found[:-1]).all())
        assert 0 <= found[0] <= found[-1] < size
        assert not contains(asked.blocked, found).any()


@pytest.mark.parametrize("deviations", [module.DEVIATIONS, 0], ids=["foreseen", "overshoot"])
@pytest.mark.parametrize("groups", [1, 4])
def test_many_are_drawn_by_the_law_of_the_race(context, monkeypatch, groups, deviations):
    # The race by brute force, Exp(1) / p for every pair, has the same mean and variance of what is drawn in total.
    monkeypatch.setattr(module, "DEVIATIONS", deviations)
    shape, wanted, draws = (80, 70), 700, 300
    f, g, asked = case(context, shape, 400, groups=groups)
    pairs = _Pairs(f, g)
    marks = torch.stack([pairs.rates.repeat_interleave(70), pairs.within[pairs.group].flatten()]).log()
    rest = [pairs.rest(asked.blocked, wanted, asked.generator) for _ in range(draws)]
    race = [draw(f, g, asked, wanted, exact=True) for _ in range(draws)]
    for mark in [*marks, marks.sum(0).square()]:
        one, two = (torch.stack([mark[found].sum() for found in drawn]) for drawn in (rest, race))
        assert ks_2samp(one, two).pvalue > 1e-3


def test_threads_change_nothing_and_seeds_everything(context, monkeypatch):
    monkeypatch.setattr(rows, "SMALL", 0)
    threads, found = torch.get_num_threads(), []
    for count, seed in [(1, 0), (2, 0), (1, 0), (1, 1)]:
        torch.set_num_threads(count)
        f, g, asked = case(context, (500, 300), 3000)
        asked.generator.manual_seed(seed)
        found.append(draw(f, g, asked, 3000, exact=True))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_memory_follows_what_is_wanted(context):
    side, wanted = 1_000_000, 100_000
    asked = context((side, side), range(0, 10**12, 10**8))
    for f in (torch.ones(1, side), 1.0 + torch.arange(side)[None] % 7):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
            tracemalloc.start()
            found = draw(f, torch.ones(side), asked, wanted, exact=True)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert found.numel() == wanted
        assert peak + sum(max(event.self_cpu_memory_usage, 0) for event in seen.events()) < 1000 * side


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [0.1, 5.0, 2.0, 1e-3, 1.0], [1e-9, 1.0, 1e9]])
def test_alias_tables_hold_the_weights(weights):
    f = torch.tensor([weights, weights[::-1]], dtype=torch.double)
    accept, alias = alias_tables(f.numpy())
    for k in range(2):
        shares = torch.from_numpy(accept[k]).clone()
        shares.index_add_(0, torch.from_numpy(alias[k]).long(), 1 - torch.from_numpy(accept[k]))
        torch.testing.assert_close(shares / len(weights), f[k] / f[k].sum(), rtol=1e-9, atol=1e-16)


def test_a_weight_that_dwarfs_all_others_does_not_swallow_them(context):
    # One of a million inputs, or outputs, has 99.9 % of the weight; the floor leaves 1e-9 to each of the others.
    many, one = torch.ones(1_000_000), torch.ones(2)
    many[0] = 1e12
    for ends in (_Pairs(many[None], one).i_ends, _Pairs(one[None], many).o_ends):
        shares = ends[:-1].diff() / ends[-1]  # rounding of the sum falls on the last
        torch.testing.assert_close(shares, torch.full_like(shares, 1e-9), rtol=2e-3, atol=0)
    found = draw(many[None], one, context((2, 1_000_000)), 100_000, exact=False)
    assert abs(int((found % 1_000_000 != 0).sum()) - 100) < 50
