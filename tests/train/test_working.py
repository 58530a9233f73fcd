"""Weights are cast to 16 bits together, and the numbers are those of autocast, which casts each by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dstrun.train.working import Working


class Casts(TorchDispatchMode):
    """Counts what is cast, and what is copied together."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "_foreach_copy_"):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Net(nn.Module):
    """Convolutions of both kinds, a normalization, a layer that is never used and two that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.line = nn.Conv1d(8, 8, 3, bias=False)
        self.one, self.other, self.unused = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.norm(self.first(x)).relu().flatten(2)).mean(2)
        return self.other(self.one(x).relu())


def passed(lower: bool) -> tuple[list[Tensor | None], Counter[str]]:
    """Return the output, gradients and statistics of a pass, and how often was cast."""
    model = Net()
    called = Working(model, torch.bfloat16) if lower else model
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    with Casts() as casts:
        with torch.autocast("cpu", torch.bfloat16):
            y = called(x)
        y.float().square().sum().backward()
    return [y.detach(), *(p.grad for p in model.parameters()), *model.buffers()], casts.found


def test_numbers_are_those_of_autocast() -> None:
    (expected, apart), (found, together) = passed(False), passed(True)
    assert [one is None for one in found] == [one is None for one in expected]
    assert sum(one is None for one in found) == 2, "the layer that is not used"
    for one, other in zip(expected, found, strict=True):
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other))
        assert one is None or other is None or one.dtype == other.dtype
    weights = 6  # two of the first, one of the line, one that is shared, two biases
    assert apart["_to_copy"] - together["_to_copy"] == 2 * weights
    assert together["_foreach_copy_"] == 2
