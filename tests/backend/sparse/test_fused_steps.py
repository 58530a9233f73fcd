"""A hundred steps: fused operations leave the bits of separate ones, and the course of masked layers in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.backend.sparse import normalization
from dstrun.layer.interface import SparseLayer
from dstrun.model.vit import ViT

STEPS = 100


class Residual(nn.Module):
    """Convolutions with all that is fused after them: normalization, ReLU, an addition, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.one, self.two = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norms[1](self.two(F.relu(self.norms[0](self.one(x)))))
        return self.head(self.pool(F.relu(y + x)).flatten(1))


def transformer() -> nn.Module:
    return ViT(width=0.125).build((3, 8, 8), 10)


def course(
    build: Callable[[], nn.Module], sparsify: Callable[..., list[SparseLayer]], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """Train; give the losses, all that the network then holds, and what it gives in evaluation."""
    torch.manual_seed(0)
    model = build()
    counts = [max(1, m.weight.numel() // 4) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    layers = sparsify(model, counts)
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.to(dtype)), y)
        loss.backward()
        for layer in layers:
            layer.confine_gradient()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        return torch.stack(losses), [*model.state_dict().values(), model.eval()(x.to(dtype))]


@pytest.mark.parametrize("build", [Residual, transformer], ids=["residual", "transformer"])
def test_fused_unfused_and_masked(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    losses, fused = course(build, sparse.sparsify, torch.float32)
    exact, _ = course(build, masked.sparsify, torch.float64)
    assert exact[-1] < exact[0] / 4
    torch.testing.assert_close(losses.double(), exact, rtol=1e-3, atol=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(normalization, "_defers", lambda _: False)
        again, unfused = course(build, sparse.sparsify, torch.float32)
    assert torch.equal(losses, again)
    assert len(fused) == len(unfused) > 10
    assert all(torch.equal(one, two) for one, two in zip(fused, unfused, strict=True))
