import torch

from dstrun.grow.gradient import Gradient
from dstrun.layer.criterion import Cost
from dstrun.layer.geometry import LinearGeometry
from dstrun.layer.growth import GrowthContext


def test_magnitude_over_all_inactive():
    asked = GrowthContext(LinearGeometry((1, 3)), 1, torch.tensor([0]), 2, torch.Generator())
    criterion = Gradient()
    assert criterion.candidates(asked) is None
    assert criterion.score(torch.tensor([0.0, -2.0, 1.0]), None, asked).tolist() == [0, 2, 1]
    assert (criterion.cost, criterion.regrow, criterion.aggregates) == (Cost.DENSE_GRAD, True, False)
