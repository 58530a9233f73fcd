"""Networks of a few weights, scored on given samples."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from method_setting import setting
from torch import Tensor, nn

from dstrun.backend.masked import layer as masked
from dstrun.layer.interface import SparseLayer


class Beside(nn.Module):
    """Two linear layers, 2 to 2, side by side; an input of ones on the diagonal gives both weights transposed."""

    def __init__(self, *weights: list[float]) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(2, 2, bias=False) for _ in range(2))
        for layer, values in zip((self.a, self.b), weights, strict=True):
            layer.weight.data = torch.tensor(values).view(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x).T.flatten(), self.b(x).T.flatten()])


@dataclass
class Scored:
    """A network and its setting; ``drawn`` lists what it was asked for, (step, per class)."""

    net: nn.Module
    layers: list[SparseLayer]
    setting: Any
    drawn: list[tuple[int, int]]

    def kept(self) -> list[list[int]]:
        return [layer.topology.positions.tolist() for layer in self.layers]


@pytest.fixture
def scored():
    """Set a network up with every connection, and the samples of every step: (step, per class) to images, labels."""

    def scored(net: nn.Module, samples=None, **changes) -> Scored:
        layers = masked.wrap(net, torch.device("cpu"))
        drawn = []

        def given(step: int, per_class: int) -> tuple[Tensor, Tensor]:
            drawn.append((step, per_class))
            return samples(step, per_class)

        return Scored(net, layers, setting(layers, model=net, samples=given, **changes), drawn)

    return scored


@pytest.fixture
def beside(scored):
    """Set eight weights up in two layers, with a loss of them."""

    def beside(a: list[float], b: list[float], loss, **changes) -> Scored:
        eye = torch.eye(2)
        return scored(Beside(a, b), lambda step, per_class: (eye, torch.zeros(2)), loss=loss, **changes)

    return beside
