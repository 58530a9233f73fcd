from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_setting import setting

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.method.dynamic.dsr import DSR, share_out
from dstrun.system.trouble import ConfigError

NOTHING = [0.0] * 8
EVERY_STEP = {"periods": (1,), "period_changes": (), "end": 1.0}


def start(bench, total=100, **option):
    bench.procedure = DSR(**option).procedure(setting(bench.layers, total_steps=total))
    return bench


# --- eight weights, by hand -------------------------------------------------------------------------------------------
# At H = 0.001 position 1 of the first layer goes, and positions 2 and 5 of the second: K = 3. Survivors are 3 and 1, so
# that the first grows 9/4 and the second 3/4: floors 2 and 0, and the one left over goes to the larger remainder, 3/4.
FIRST = {0: 0.5, 1: -0.0009, 4: 0.001, 6: -0.9}
SECOND = {2: 0.0001, 5: -0.0002, 7: 0.3}


def test_by_hand(bench):
    made = start(bench((FIRST, NOTHING), (SECOND, NOTHING)), target_count=3, **EVERY_STEP)
    hook, update = made.step()
    assert hook == "after"
    assert [(c.active, c.pruned, c.grown, c.candidates) for c in update.changes] == [(5, 1, 2, 0), (2, 2, 1, 0)]
    first, second = made.weights(0), made.weights(1)
    assert {p: w for p, w in first.items() if w} == {0: 0.5, 4: 0.001, 6: -0.9}
    assert {p: w for p, w in second.items() if w} == {7: 0.3}
    assert {p for p, w in first.items() if not w} <= {2, 3, 5, 7}  # neither active before nor just pruned
    assert {p for p, w in second.items() if not w} <= {0, 1, 3, 4, 6}
    assert made.procedure.threshold == 0.001  # K is N_p
    assert update.samples == 0
    assert not update.replaces_step


@pytest.mark.parametrize(("wanted", "threshold"), [(1, 0.0005), (2, 0.0005), (3, 0.001), (4, 0.002), (100, 0.002)])
def test_the_threshold_halves_above_and_doubles_below_what_is_wanted(bench, wanted, threshold):
    made = start(bench((FIRST, NOTHING), (SECOND, NOTHING)), target_count=wanted, **EVERY_STEP)
    made.step()
    assert made.procedure.threshold == pytest.approx(threshold)


@pytest.mark.parametrize(("count", "threshold"), [(899, 2e-3), (900, 1e-3), (1100, 1e-3), (1101, 5e-4), (0, 2e-3)])
def test_the_threshold_stays_within_a_tenth_of_what_is_wanted(count, threshold):
    procedure = DSR(target_count=1000).procedure(setting())
    procedure._adjust(count, 5000)
    assert procedure.threshold == threshold


def test_what_is_wanted_is_a_share_of_the_active_connections():
    assert DSR().wanted(145_152) == 20_031  # N_p = 20,000 of WRN-28-2 at 90 %
    assert DSR(target_count=600).wanted(145_152) == 600
    assert DSR(target=0.01).wanted(3) == 1


def test_a_layer_keeps_its_largest_weight(bench):
    weak = {0: 0.0001, 3: -0.0004, 5: 0.0002}
    made = start(bench((weak, NOTHING), (FIRST, NOTHING)), **EVERY_STEP)
    _, update = made.step()
    assert update.changes[0].pruned == 2
    assert made.weights(0)[3] == pytest.approx(-0.0004)
    assert sum(c.active for c in update.changes) == 7


def test_a_full_layer_leaves_the_rest_to_the_others(bench):
    """The first grows 1 of its share of 3 * 6 / 7 = 2.57: one position is inactive. The second takes the other two."""
    nearly_full = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 0.0001}
    made = start(bench((nearly_full, NOTHING), (SECOND, NOTHING)), **EVERY_STEP)
    _, update = made.step()
    assert [(c.pruned, c.grown) for c in update.changes] == [(1, 1), (2, 2)]
    assert made.weights(0).keys() == {0, 1, 2, 3, 4, 5, 7}


def test_where_all_others_are_active_what_was_pruned_returns_at_zero(bench):
    """Two go, one position is inactive: of these three, two come."""
    weights = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 0.0001, 6: 0.0001}
    made = start(bench((weights, NOTHING)), **EVERY_STEP)
    _, update = made.step()
    assert sum(w == 0 for w in made.weights().values()) == 2
    (change,) = update.changes
    assert change.active == 7
    assert change.pruned == change.grown <= 1


def test_a_dense_layer_takes_no_part(bench):
    dense = {p: 0.0001 for p in range(8)}
    made = start(bench((dense, NOTHING), (FIRST, NOTHING)), **EVERY_STEP)
    _, update = made.step()
    assert [(c.active, c.pruned, c.grown) for c in update.changes] == [(8, 0, 0), (4, 1, 1)]
    assert made.weights(0) == dense


def test_momentum_of_a_grown_connection_starts_at_zero(bench):
    made = start(bench((FIRST, [1e-9] * 8), momentum=0.9), **EVERY_STEP)
    made.step()
    made.step()
    for position, weight in made.weights().items():
        if weight == 0:
            assert made.momentum()[position] == 0


# --- laws -------------------------------------------------------------------------------------------------------------


@st.composite
def portions(draw):
    room = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    weights = [draw(st.integers(1, 1000)) for _ in room]
    return draw(st.integers(0, sum(room))), weights, room


@pytest.mark.parametrize(
    ("count", "weights", "shares"),
    [(5, [6, 3, 1], [3, 2, 0]), (2, [7, 2, 1], [2, 0, 0]), (3, [5, 4, 2], [1, 1, 1]), (4, [5, 1, 1], [3, 1, 0])],
)
def test_the_largest_remainder_is_rounded_up_and_the_earlier_of_two(count, weights, shares):
    assert share_out(count, weights, [9, 9, 9]) == shares


@given(portions())
def test_shares_are_exact_within_room_and_in_proportion(case):
    count, weights, room = case
    shares = share_out(count, weights, room)
    assert sum(shares) == count
    assert all(0 <= s <= r for s, r in zip(shares, room, strict=True))
    open_ = [i for i, (s, r) in enumerate(zip(shares, room, strict=True)) if s < r]
    for i in open_:
        for j in open_:
            assert abs(Fraction(shares[i], weights[i]) - Fraction(shares[j], weights[j])) < Fraction(
                1, min(weights[i], weights[j])
            ) + Fraction(1, max(weights[i], weights[j]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.floats(1e-4, 1.0))
def test_updates_keep_the_budget_and_grow_nothing_just_pruned(seed, threshold):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    layers = masked.sparsify(net, [60, 80, 30], seed=seed)
    procedure = DSR(threshold=threshold, **EVERY_STEP).procedure(setting(layers, seed=seed))
    for step in range(1, 6):
        before = [dict(zip(x.topology.positions.tolist(), x.values().tolist(), strict=True)) for x in layers]
        small = procedure.threshold
        update = procedure.after_step(step)
        assert sum(layer.count for layer in layers) == 170
        assert sum(c.pruned for c in update.changes) == sum(c.grown for c in update.changes)
        for layer, weights in zip(layers, before, strict=True):
            after = dict(zip(layer.topology.positions.tolist(), layer.values().tolist(), strict=True))
            assert layer.count >= 1
            assert all(abs(weights[p]) < small for p in weights.keys() - after.keys())
            assert all(after[p] == 0 for p in after.keys() - weights.keys())
            assert all(after[p] == weights[p] for p in after.keys() & weights.keys())
            layer.set_values(torch.where(layer.values() == 0, torch.randn(layer.count) / 10, layer.values()))


def test_both_backends_reallocate_alike():
    found = []
    for backend in (masked, sparse):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 30))
        layers = backend.sparsify(net, [60, 80], seed=1)
        procedure = DSR(threshold=0.1, **EVERY_STEP).procedure(setting(layers))
        updates = [procedure.after_step(step) for step in (1, 2, 3)]
        found.append(([x.topology.positions.tolist() for x in layers], [x.values().tolist() for x in layers]))
        moved = [[(c.active, c.pruned, c.grown) for c in u.changes] for u in updates]
        found[-1] += (moved, procedure.threshold)
    assert found[0] == found[1]


# --- when -------------------------------------------------------------------------------------------------------------


def test_the_papers_run_reallocates_at_the_papers_steps():
    """200 epochs of 500: P is 100 to epoch 25, 200 to 80, 400 to 140, 800 to 190."""
    steps = DSR().steps(100_000)
    assert steps[:3] == [100, 200, 300]
    assert 12_500 in steps
    assert [b - a for a, b in pairwise([0, *steps])].count(100) == 125
    gaps = [b - a for a, b in pairwise(steps)]
    assert gaps == sorted(gaps)
    assert set(gaps) == {100, 200, 400, 800}
    assert steps[-1] <= 95_000
    assert DSR().steps(200_000)[0] == 100  # a longer run keeps P


@given(st.integers(1, 3000))
def test_a_short_run_reallocates_too(total):
    steps = DSR().steps(total)
    assert steps == sorted(set(steps))
    assert all(1 <= step <= round(0.95 * total) for step in steps)
    assert len(steps) >= min(3, round(0.95 * total))


def test_the_forecast_has_a_stretch_an_update():
    stretches = list(DSR().planned_phases([100], [10], None, 100_000))
    assert sum(length for length, _ in stretches) == 100_000
    assert len(stretches) - 1 == len(DSR().steps(100_000))


def test_the_threshold_is_in_the_checkpoint(bench):
    made = start(bench((FIRST, NOTHING)), **EVERY_STEP)
    made.procedure.load_state({"threshold": 0.25})
    assert made.procedure.state() == {"threshold": 0.25}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            {"periods": (100, 200)},
            "method.periods=[100, 200] must be one number more than method.period_changes=[0.125, 0.4, 0.7]",
        ),
        (
            {"period_changes": (0.4, 0.1, 0.7)},
            "method.period_changes=[0.4, 0.1, 0.7] must increase",
        ),
    ],
)
def test_refusals(option, sentence):
    with pytest.raises(ConfigError) as error:
        DSR(**option)
    assert str(error.value) == sentence
