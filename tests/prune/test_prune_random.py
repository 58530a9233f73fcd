import torch
from scipy.stats import chisquare, kstest
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.layer.topology import Topology
from dstrun.prune.random import Random


def test_the_lowest_is_any_active_weight_equally_often():
    layer = MaskedLayer("fc", nn.Linear(3, 2), Topology((2, 3), torch.tensor([0, 1, 2, 5])))
    generator = torch.Generator().manual_seed(0)
    scores = torch.stack([Random().score(layer, generator) for _ in range(2000)])
    assert scores.shape == (2000, 4)
    assert chisquare(scores.argmin(1).bincount(minlength=4)).pvalue > 1e-3
    assert kstest(scores.flatten().numpy(), "uniform").pvalue > 1e-3
