from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dstrun.backend.sparse.layer import keep_layout
from dstrun.backend.sparse.normalization import BatchNorm2d

SHAPES = [(1, 1, 3, 5), (128, 4, 3, 3), (7, 5, 1, 1), (2, 3, 1, 1), (33, 2, 9, 31), (150, 3, 8, 8), (1, 6, 70, 71)]


def innermost(x: Tensor) -> Tensor:
    """Lay (N, C, H, W) out as (C, H, W, N)."""
    return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def run(module: nn.Module, x: Tensor, delta: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(delta)
    assert x.grad is not None
    parameters = [p.grad for p in module.parameters() if p.grad is not None]
    statistics = [b for b in module.buffers() if b.is_floating_point()]
    return [y.detach(), x.grad, *parameters, *statistics]


def pair(channels: int, **kwargs) -> tuple[nn.BatchNorm2d, BatchNorm2d]:
    theirs = nn.BatchNorm2d(channels, **kwargs)
    if theirs.affine:
        nn.init.uniform_(theirs.weight, -2, 2)
        nn.init.uniform_(theirs.bias, -2, 2)
    ours = nn.Sequential(copy.deepcopy(theirs))
    keep_layout(ours)
    assert isinstance(ours[0], BatchNorm2d)
    return theirs.double(), ours[0]


def compare(theirs: list[Tensor], ours: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(theirs) == len(ours)
    for expected, got in zip(theirs, ours, strict=True):
        scale = max(1.0, float(expected.abs().max()))
        assert float((expected - got.double()).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_training_equals_torch_in_double_precision(shape: tuple[int, ...], mean: float) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(shape[1])
    x, delta = torch.randn(shape) + mean, torch.randn(shape)
    tolerance = 1e-5 if shape[0] * shape[2] * shape[3] > 2 else 1e-3
    for _ in range(2):
        expected = run(theirs, x.double(), delta.double())
        compare(expected, run(ours, innermost(x), innermost(delta)), tolerance * max(1, mean / 10))


def test_variance_holds_beside_a_large_mean_and_a_jump() -> None:
    """Sums of plain squares in float32 would lose it altogether."""
    torch.manual_seed(0)
    x = torch.randn(64, 2, 16, 16) + 3000
    x[:, 1, 8:] += 500
    ours = BatchNorm2d(2, momentum=1.0)
    ours(innermost(x))
    torch.testing.assert_close(ours.running_mean, x.double().mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.running_var, x.double().var((0, 2, 3)).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_every_setting_in_training_and_evaluation(momentum: float | None, affine: bool, tracks: bool) -> None:
    torch.manual_seed(0)
    settings = {"momentum": momentum, "affine": affine, "track_running_stats": tracks, "eps": 1e-2}
    theirs, ours = pair(3, **settings)
    for training in (True, True, False):
        theirs.train(training)
        ours.train(training)
        x, delta = torch.randn(20, 3, 5, 7), torch.randn(20, 3, 5, 7)
        compare(run(theirs, x.double(), delta.double()), run(ours, innermost(x), innermost(delta)))
    if tracks:
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 2


@pytest.mark.parametrize("training", [True, False])
def test_layout_stays_also_of_the_gradient(training: bool) -> None:
    ours = BatchNorm2d(4).train(training)
    x = innermost(torch.randn(6, 4, 3, 2)).requires_grad_()
    y = ours(x)
    y.backward(torch.randn(6, 4, 3, 2))
    assert x.grad is not None
    assert y.stride() == x.grad.stride() == x.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_may_lie_otherwise(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(5)
    x, delta = torch.randn(17, 5, 3, 4), torch.randn(17, 5, 3, 4)
    got = run(ours, innermost(x), delta.to(memory_format=layout))
    compare(run(theirs, x.double(), delta.double()), got)


@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16(parameters: torch.dtype, training: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(3)
    ours.to(parameters).train(training)
    theirs.load_state_dict(ours.state_dict())
    theirs.train(training)
    x, delta = torch.randn(40, 3, 6, 5).bfloat16(), torch.randn(40, 3, 6, 5).bfloat16()
    got = run(ours, innermost(x), innermost(delta))
    assert [t.dtype for t in got] == [torch.bfloat16] * 2 + [parameters] * 4
    compare(run(theirs, x.double(), delta.double()), got, 1e-2)


def test_what_follows_may_work_in_place() -> None:
    torch.manual_seed(0)
    theirs, ours = pair(5)
    x, delta = torch.randn(17, 5, 3, 4), torch.randn(17, 5, 3, 4)
    wholes = [nn.Sequential(module, nn.ReLU(inplace=True)) for module in (theirs, ours)]
    compare(run(wholes[0], x.double(), delta.double()), run(wholes[1], innermost(x), delta))


def test_other_inputs_go_to_torch() -> None:
    ours = BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    assert ours.double()(innermost(x)).dtype == torch.float64
    x = torch.randn(4, 3, 2, 2)
    assert ours.float()(x).is_contiguous()
    with pytest.raises(ValueError, match="more than 1 value"):
        ours(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        ours(torch.randn(3, 3))


def test_not_a_number_shows() -> None:
    x = innermost(torch.randn(4, 3, 2, 2))
    x[0, 1, 0, 0] = float("nan")
    y = BatchNorm2d(3)(x)
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].isfinite().all()


def test_parameters_and_state_are_kept() -> None:
    module = nn.BatchNorm2d(3)
    before = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    keep_layout(nn.Sequential(module))
    ours = module
    assert isinstance(ours, BatchNorm2d)
    after = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    assert all(after[name] is tensor for name, tensor in before.items())
    assert ours.state_dict().keys() == nn.BatchNorm2d(3).state_dict().keys()
