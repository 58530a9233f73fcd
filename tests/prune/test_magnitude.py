import torch
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.layer.topology import Topology
from dstrun.prune.magnitude import Magnitude


def test_magnitudes_of_the_active_weights_in_order():
    layer = MaskedLayer("fc", nn.Linear(3, 2), Topology((2, 3), torch.tensor([1, 2, 5])))
    layer.set_values(torch.tensor([-0.5, 0.0, 2.0]))
    assert Magnitude().score(layer, torch.Generator()).tolist() == [0.5, 0, 2]
