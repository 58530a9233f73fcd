import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.layer.selection import lowest
from dstrun.layer.topology import Topology
from dstrun.prune.sign import Sign


def layer(values):
    made = MaskedLayer("fc", nn.Linear(len(values), 1), Topology((1, len(values)), torch.arange(len(values))))
    made.set_values(torch.tensor(values))
    return made


def pruned(values, count):
    return sorted(lowest(Sign().score(layer(values), torch.Generator()), count).tolist())


# Eight weights, four of each sign; the negative ones are much smaller.
EIGHT = [0.9, -0.01, 0.5, -0.04, 0.7, -0.02, 0.6, -0.03]


def test_by_hand():
    # Positive in order: 0.5 0.6 0.7 0.9; negative from zero on: -0.01 -0.02 -0.03 -0.04.
    expected = [4 / 4, 1 / 4, 1 / 4, 4 / 4, 3 / 4, 2 / 4, 2 / 4, 3 / 4]
    assert Sign().score(layer(EIGHT), torch.Generator()).tolist() == expected
    # zeta = 1/2 takes half of each sign, where |w| would take every negative one.
    assert pruned(EIGHT, 4) == [1, 2, 5, 6]
    assert sorted(layer(EIGHT).values().abs().argsort()[:4].tolist()) == [1, 3, 5, 7]


def test_signs_of_unequal_number_lose_the_same_share():
    # Six positive, two negative: half of all eight is three and one.
    assert pruned([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.7, -0.8], 4) == [0, 1, 2, 6]


def test_weights_that_never_moved_go_first_and_one_sign_alone_is_ranked():
    assert pruned([0.1, 0.0, -0.1, 0.0], 2) == [1, 3]
    assert pruned([0.3, 0.1, 0.2], 2) == [1, 2]
    assert pruned([0.0, -0.0, 0.0], 2) == [0, 1]


@given(st.lists(st.floats(-1, 1, width=32).filter(bool), min_size=1, max_size=40), st.floats(0, 1))
def test_each_sign_loses_its_share_within_one(values, share):
    count = int(share * len(values))
    gone = pruned(values, count)
    for sign in (1, -1):
        own = [i for i, v in enumerate(values) if v * sign > 0]
        lost = [i for i in own if i in gone]
        assert abs(len(lost) - count / len(values) * len(own)) <= 1
        assert all(abs(values[i]) <= abs(values[j]) for i in lost for j in set(own) - set(lost))
