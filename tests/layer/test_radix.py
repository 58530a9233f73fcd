import numpy as np
import pytest
import torch

from dstrun.layer import radix
from dstrun.layer.growth import Proposal
from dstrun.layer.selection import chosen, highest, lowest


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("levels", [1, 3, 1 << 20])
@pytest.mark.parametrize("low", [False, True])
def test_the_chosen_are_the_best_by_a_stable_sort(low, levels, threads, monkeypatch):
    monkeypatch.setattr(radix, "SMALL", 0)
    draws = torch.Generator().manual_seed(levels)
    scores = (torch.randint(-levels, levels, (5000,), generator=draws) / levels).float()
    scores[::70], scores[::90], scores[::110] = torch.nan, -0.0, torch.inf
    excluded = torch.arange(0, 5000, 37)
    signed = (-scores if low else scores).nan_to_num(-torch.inf, torch.inf, -torch.inf) + 0.0
    order = signed.sort(descending=True, stable=True).indices
    order = order[~torch.isin(order, excluded)]
    for count in (0, 1, 777, order.numel()):
        found = radix.chosen(scores.numpy(), count, excluded.numpy(), low, threads, 64)
        assert found.tolist() == order[:count].sort().values.tolist()


def test_nothing_is_chosen_of_nothing():
    assert radix.chosen(np.empty(0, np.float32), 0, np.empty(0, np.int64), False, 1, 64).size == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_chosen_names_those_that_highest_and_lowest_order(dtype):
    scores = torch.randint(50, (300,), generator=torch.Generator().manual_seed(0)).to(dtype)
    for low, ordered in ((False, highest), (True, lowest)):
        assert chosen(scores, 100, low=low).sort().values.tolist() == sorted(ordered(scores, 100).tolist())


def test_a_proposal_names_its_best_first():
    kept, scores = torch.tensor([3, 5, 8, 9]), torch.tensor([1.0, 2.0, 0.5, 2.0])
    proposal = Proposal(kept, scores, 4)
    assert proposal.positions.tolist() == [5, 9, 3, 8]
    assert proposal.scores.tolist() == [2.0, 2.0, 1.0, 0.5]
