"""Gradients do not change where they must not, are right in the mean where they are drawn, and less is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from saved import saved_for_backward
from torch import Tensor, nn
from torch.nn import functional as F

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.backend.sparse import normalization, pooling
from dstrun.layer.interface import prunable
from dstrun.method.soft import powerprop
from dstrun.model.resnet import ResNet
from dstrun.model.vgg import VGG16
from dstrun.model.vit import ViT
from dstrun.storage.activations import Kept
from dstrun.storage.form import encode

BACKENDS = {"masked": masked.sparsify, "sparse": sparse.sparsify}


class PreActivation(nn.Module):
    """Two wide residual blocks, with dropout, average pooling and a clipped rectification."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(4))
        self.dropout, self.pool, self.head = nn.Dropout(0.3), nn.AvgPool2d(2), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for i in (0, 2):
            y = self.convolutions[i](F.relu(self.norms[i](x), inplace=True))
            y = self.norms[i + 1](y)
            x = x + self.convolutions[i + 1](self.dropout(F.relu6(y) if i else y.relu_()))
        return self.head(self.pool(x).mean((2, 3)))


def mlp() -> nn.Module:
    hidden = [
        nn.Linear(3072, 300),
        nn.ReLU(inplace=True),
        nn.Linear(300, 300),
        nn.SiLU(),
        nn.Dropout(0.2, inplace=True),
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(300, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], float, float]] = {
    "resnet": (lambda: ResNet(depth=8, width=0.5).build((3, 32, 32), 10), 0.70, 0.11),
    "preactivation": (PreActivation, 0.50, 0.09),
    "vgg": (lambda: VGG16(base=8).build((3, 32, 32), 10), 0.52, 0.10),
    "vit": (lambda: ViT(patch=8, width=0.25).build((3, 32, 32), 10), 0.70, 0.11),
    "mlp": (mlp, 0.90, 0.15),
}
"""Networks, and the shares of what PyTorch keeps that ``lean`` and ``int4`` may keep."""


def images(count: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(count, 3, 32, 32, generator=draw).to(memory_format=torch.channels_last)
    return x, torch.randint(10, (count,), generator=draw)


def sparsified(name: str, backend: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name][0]().train()
    BACKENDS[backend](model, [module.weight.numel() // 4 for _, module in prunable(model)])
    return model


def passed(model: nn.Module, kind: str, dtype: torch.dtype | None = None) -> tuple[list[Tensor], int]:
    """Return a pass's output, gradients and buffers, and the bytes kept; the network is as before."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    device = next(model.parameters()).device
    x, y = (each.to(device) for each in images())
    kept = Kept(kind, 0, model)
    torch.manual_seed(1)
    with torch.autocast(device.type, dtype, enabled=dtype is not None), kept.forward(1):
        logits = model(x)
    model.zero_grad()
    F.cross_entropy(logits.float(), y).backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    found = [logits.detach(), *gradients, *(b.clone() for b in model.buffers())]
    model.load_state_dict(before)
    return found, kept.nbytes


def copied(model: nn.Module) -> int:
    """Count the bytes of weights that autocast keeps in 16 bits: all whose layer's input needs a gradient."""
    return sum(2 * module.weight.numel() for _, module in list(prunable(model))[1:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_lean_changes_no_bit_and_all_keep_less(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparsified(name, backend)
    plain, _ = passed(model, "full")
    monkeypatch.setattr(normalization, "_defers", lambda x: False)  # an operation at a time, as PyTorch keeps them
    monkeypatch.setattr(pooling, "fits", lambda x: False)
    with saved_for_backward([*model.parameters(), *model.buffers()]) as saved:
        assert all(map(torch.equal, plain, passed(model, "full")[0]))
    loss = 16 * 10 * 4 + 16 * 8  # log-probabilities and labels
    full = sum(saved.values()) - loss
    lean, lean_bytes = passed(model, "lean")
    assert all(map(torch.equal, lean, plain))
    assert lean_bytes <= NETWORKS[name][1] * full
    coded, coded_bytes = passed(model, "int4")
    assert torch.equal(coded[0], plain[0])  # what is kept changes no output
    assert not all(map(torch.equal, coded, plain))
    assert coded_bytes <= NETWORKS[name][2] * full
    near, bytes16 = passed(model, "bf16")
    assert coded_bytes < bytes16 <= 0.6 * lean_bytes
    total = sum(g.square().sum() for g in plain[1:])
    assert sum((g - p).square().sum() for g, p in zip(near[1:], plain[1:], strict=True)) < 1e-4 * total


@pytest.mark.parametrize("name", NETWORKS)
def test_lean_changes_no_bit_under_autocast(name: str) -> None:
    model = sparsified(name, "masked")
    plain, lean, int4 = (passed(model, kind, torch.bfloat16) for kind in ("full", "lean", "int4"))
    assert all(map(torch.equal, lean[0], plain[0]))
    copies = copied(model)
    assert int4[1] - copies < 0.5 * (lean[1] - copies)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_lean_changes_no_bit_on_a_gpu(name: str, dtype: torch.dtype | None) -> None:
    model = sparsified(name, "masked").cuda()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        plain, lean, int4 = (passed(model, kind, dtype) for kind in ("full", "lean", "int4"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, lean[0], plain[0]))
    assert torch.equal(int4[0][0], plain[0][0])
    copies = 0 if dtype is None else copied(model)
    assert int4[1] - copies < 0.5 * (lean[1] - copies)
    total = sum(g.float().square().sum() for g in plain[0][1:])
    assert 0 < sum((a.float() - b).square().sum() for a, b in zip(int4[0][1:], plain[0][1:], strict=True)) < total


class Fragment(nn.Module):
    """A convolution on normalized, rectified numbers: what is kept is used linearly by both weights."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.convolution = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.relu(self.norm(x)))


def drawn(model: nn.Module, x: Tensor, pull: Tensor, kind: str, count: int) -> list[Tensor]:
    """Return the gradients of ``(model(x) * pull).sum()`` with respect to parameters and input, of many seeds."""

    def gradients(seed: int) -> list[Tensor]:
        inputs = x.clone().requires_grad_()
        with Kept(kind, seed, model).forward(1):
            y = model(inputs)
        return [g.double() for g in torch.autograd.grad((y * pull).sum(), [*model.parameters(), inputs])]

    return [torch.stack(each) for each in zip(*map(gradients, range(count)), strict=True)]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_weights_get_gradients_that_are_right_in_the_mean(kind: str) -> None:
    torch.manual_seed(0)
    model, x, pull = Fragment(), torch.randn(4, 4, 16, 16), torch.randn(4, 4, 16, 16)
    exact, draws = drawn(model, x, pull, "full", 1), drawn(model, x, pull, kind, 300)
    for true, found in zip(exact[:-1], draws[:-1], strict=True):
        assert ((found.mean(0) - true[0]).abs() <= 5 * found.std(0) / 300**0.5 + 1e-4).all()
    assert draws[0].std(0).min() > 0  # of normalization's scale
    assert draws[2].std(0).min() > 0  # of the convolution's weight
    assert torch.equal(draws[3], exact[3].expand_as(draws[3]))  # its bias needs nothing that is kept


def test_the_bias_of_normalization_is_as_the_module_says() -> None:
    """-weight / deviation / M * variance of the rounding * output gradient, with M so small that it can be seen."""
    torch.manual_seed(0)
    model, x, pull = nn.BatchNorm1d(1024), torch.randn(8, 1024), torch.randn(8, 1024)
    exact, draws = drawn(model, x, pull, "full", 1)[-1][0], drawn(model, x, pull, "int4", 400)[-1]
    blocks = encode(x.flatten(), 15, 0)
    low, step = (each.double().repeat_interleave(256).view(x.shape) for each in (blocks.low, blocks.step))
    part = ((x - low) / step).frac()
    inverse = (x.double().var(0, unbiased=False) + 1e-5).rsqrt()
    expected = -inverse / len(x) * step.square() * part * (1 - part) * inverse.square() * pull
    found = draws.mean(0) - exact
    slope = (found * expected).sum() / expected.square().sum()
    assert slope == pytest.approx(1, abs=0.15)
    left = found - expected
    assert left.square().mean() <= 1.2 * (draws.var(0) / len(draws)).mean()  # the rest is the noise of the draws


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_what_weights_are_computed_from_stays_as_it_is(dtype: torch.dtype | None) -> None:
    """So few inputs are not rounded, and nothing else is an activation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100))
    powerprop.reparametrize(model, 2)
    x = torch.randn(16, 100)
    found = []
    for kind in ("full", "int4"):
        with torch.autocast("cpu", dtype, enabled=dtype is not None), Kept(kind, 0, model).forward(1):
            y = model(x)
        found.append(torch.autograd.grad(y.float().square().sum(), list(model.parameters())))
    assert all(map(torch.equal, *found))


def test_noise_is_of_step_part_and_process_and_goes_on_where_a_part_is_passed_again() -> None:
    model, x = nn.Linear(300, 1), torch.randn(16, 300)

    def gradient(kept: Kept, step: int, part: int = 0) -> Tensor:
        with kept.forward(step, part):
            y = model(x)
        return torch.autograd.grad(y.sum(), model.weight)[0]

    kept = Kept("int8", 0, model)
    first, again = gradient(kept, 1), gradient(kept, 1)
    others = [gradient(kept, 2), gradient(kept, 1, 1), gradient(Kept("int8", 0, model, 1), 1)]
    assert torch.equal(first, gradient(Kept("int8", 0, model), 1))
    for other in (again, *others, gradient(Kept("int8", 1, model), 1)):
        assert not torch.equal(first, other)


def test_what_is_overwritten_before_it_is_used_is_refused_as_by_pytorch() -> None:
    model, x = nn.Linear(300, 300), torch.randn(16, 300)
    with Kept("lean", 0, model).forward(1):
        y = model(x)
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_nothing_outlives_the_backward_pass() -> None:
    """Each tensor is let go of as soon as the operations that saved it are done, whatever made it."""
    from torch.multiprocessing.reductions import StorageWeakRef

    model, kept = Fragment(), Kept("lean", 0, Fragment())
    x = torch.randn(2, 4, 32, 32).requires_grad_()
    with kept.forward(1):
        inner = x * 2
        y = model(inner)
    storage = StorageWeakRef(inner.untyped_storage())
    del inner
    assert not storage.expired()
    y.sum().backward()
    assert storage.expired()
