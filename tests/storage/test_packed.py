"""An optimizer on packed weights and state computes what it computes, and keeps it as promised."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.optimizer.aged import AgedAdam
from dstrun.storage import packed
from dstrun.storage.packed import Packed

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
SGD: Make = lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=1e-2, nesterov=True)  # noqa: E731
ADAM: Make = lambda p: AgedAdam(p, 1e-2, weight_decay=1e-2)  # noqa: E731


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every weight of the tests in several parts."""
    monkeypatch.setattr(packed, "PART", 2 * packed.BLOCK)


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(30, 41), (5,), (7, 3, 3, 3), (0, 4)]
    return [nn.Parameter(torch.randn(shape, generator=draw).to(dtype if len(shape) > 1 else None)) for shape in shapes]


def steps(optimizer: torch.optim.Optimizer, count: int, seed: int = 1) -> Iterator[int]:
    """Take steps with drawn gradients."""
    draw = torch.Generator().manual_seed(seed)
    for step in range(count):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.grad = (torch.randn(p.shape, generator=draw) * 10 ** (step % 3 - 3)).to(p.dtype)
        optimizer.step()
        yield step


@pytest.mark.parametrize("make", [SGD, ADAM])
def test_in_fp32_it_is_the_optimizer_bit_for_bit(make: Make) -> None:
    plain, wrapped = parameters(), parameters()
    one, other = make(plain), Packed(make(wrapped), [wrapped[0], wrapped[2], wrapped[3]])
    for step, _ in zip(steps(one, 5), steps(other, 5), strict=True):
        if step == 2 and make is ADAM:
            for optimizer, weight in ((one, plain[0]), (other, wrapped[0])):
                optimizer.before_growth(weight)  # type: ignore[attr-defined]
        assert all(map(torch.equal, plain, wrapped))
    for p, q in zip(plain[:3], wrapped[:3], strict=True):
        assert one.state[p].keys() == other.state[q].keys()
        assert all(torch.equal(one.state[p][key], other.state[q][key]) for key in one.state[p])


@pytest.mark.parametrize(("compensated", "error"), [(True, 4e-3), (False, 0.02)], ids=["kahan", "stochastic"])
def test_small_steps_add_up_where_nearest_rounding_loses_them(compensated: bool, error: float) -> None:
    """From 1 by 1000 steps of 1e-4, each a fortieth of what bfloat16 tells apart there."""
    plain = torch.ones(300, dtype=torch.bfloat16)
    weight = nn.Parameter(plain.clone())
    optimizer = Packed(torch.optim.SGD([weight], 1e-4), [weight], compensated=compensated)
    for _ in range(1000):
        plain -= 1e-4
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert (plain == 1).all()
    held = weight.detach().float() + optimizer.state[weight].get("compensation", 0)
    assert float(held.mean()) == pytest.approx(0.9, abs=error / 4)
    assert float((held - 0.9).abs().max()) < error * (1 if compensated else 5)


@pytest.mark.parametrize("make", [SGD, ADAM])
@pytest.mark.parametrize(("kind", "share"), [(torch.bfloat16, 0.02), (torch.float16, 0.003), (torch.int8, 0.12)])
def test_state_is_near_that_of_fp32(make: Make, kind: torch.dtype, share: float) -> None:
    """Off by less than a share of the size of what was added up; small second moments stay what they are, too."""
    plain, wrapped = parameters(), parameters()
    one, other = make(plain), Packed(make(wrapped), [wrapped[0]], kind)
    for _ in zip(steps(one, 30), steps(other, 30), strict=True):
        pass
    state, kept = (
        one.state[plain[0]],
        packed._unpacked(other.state[wrapped[0]], wrapped[0].shape, slice(0, packed.PART)),
    )
    assert wrapped[0].numel() > packed.PART
    assert {t.dtype for k, t in other.state[wrapped[0]].items() if t.shape == wrapped[0].shape} <= {kind, torch.uint8}
    for key in kept.keys() - {"step"}:
        true = state[key].flatten()[: packed.PART]
        off = (kept[key] - true).abs()
        if "sq" in key:
            assert (kept[key] > 0).all()
            assert float((off / true).square().mean().sqrt()) < 2 * share
        else:
            assert float(off.norm()) < share * float(true.norm())
    assert torch.equal(plain[1], wrapped[1])  # what is no weight of a layer is not packed


@pytest.mark.parametrize("backend", [masked, sparse])
@pytest.mark.parametrize(("make", "kind"), [(SGD, torch.int8), (ADAM, torch.int8), (ADAM, torch.bfloat16)])
def test_rewiring_zeroes_what_changes_and_moves_nothing_else(backend, make: Make, kind: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(40, 60), nn.Linear(60, 4))
    layer = backend.sparsify(model, [900, 120])[0]
    layer.weight.data = layer.weight.data.bfloat16()
    optimizer = layer.optimizer = Packed(make(list(model.parameters())), [layer.weight], kind, compensated=True)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        layer.weight.grad = torch.randn(layer.weight.shape, generator=generator).bfloat16()
        layer.confine_gradient()
        optimizer.step()
    before, value = held(layer, optimizer), layer.topology.positions
    prune, free = value[::3], torch.arange(layer.topology.size)[~torch.isin(torch.arange(layer.topology.size), value)]
    grow = free[::5][: prune.numel() - 7]
    layer.rewire(prune, grow)
    after = held(layer, optimizer)
    assert {"momentum_buffer", "compensation"} <= before.keys() or {"exp_avg", "exp_avg_sq", "age"} <= after.keys()
    for key, kept in before.items():
        stays = torch.isin(torch.arange(kept.numel()), prune, invert=True)
        assert kept.any()
        assert torch.equal(after[key][stays], kept[stays])
        assert not after[key][prune].any()
        assert not after[key][grow].any()


def held(layer, optimizer: Packed) -> dict[str, Tensor]:
    """Return weights and state by position, as numbers."""
    positions = layer.topology.positions
    with optimizer.unpacked(layer.weight):
        kept = {k: t.clone() for k, t in optimizer.state[layer.weight].items() if t.shape == layer.weight.shape}
    found = {}
    for key, tensor in {"weight": layer.weight.detach(), **kept}.items():
        dense = torch.zeros(layer.topology.size, dtype=torch.float64)
        dense[positions] = (
            tensor.flatten().double() if layer.backend == "sparse" else tensor.flatten().double()[positions]
        )
        found[key] = dense
    return found


def test_it_continues_from_its_state_bit_for_bit() -> None:
    def start() -> tuple[list[nn.Parameter], Packed]:
        made = parameters(torch.bfloat16)
        return made, Packed(ADAM(made), [made[0], made[2]], torch.int8, seed=4)

    whole, optimizer = start()
    taken = steps(optimizer, 6)
    list(itertools.islice(taken, 3))
    saved = io.BytesIO()
    torch.save([optimizer.state_dict(), whole], saved)
    saved.seek(0)
    state, values = torch.load(saved, weights_only=True)
    continued, other = start()
    other.load_state_dict(state)
    for p, value in zip(continued, values, strict=True):
        p.data = value.data
    later = steps(other, 6)
    draw_past(later, other)
    list(taken)
    assert all(map(torch.equal, whole, continued))


def draw_past(later: Iterator[int], optimizer: Packed) -> None:
    """Take the last three of six steps, without taking the first three."""
    real, optimizer.step = optimizer.step, lambda: None  # type: ignore[method-assign]
    list(itertools.islice(later, 3))
    optimizer.step = real  # type: ignore[method-assign]
    list(later)


def test_scaled_gradients_in_fp16_are_scaled_back_in_fp32() -> None:
    """Also those that a criterion reads after the step; a gradient that is not finite takes none."""
    weight, bias = nn.Parameter(torch.ones(4, 5).half()), nn.Parameter(torch.ones(3))
    optimizer = Packed(torch.optim.SGD([weight, bias], 1.0), [weight])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((weight.float() * 2e-4).sum() + bias.sum() / 2).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.detach().float().mean() == pytest.approx(1 - 2e-4, abs=5e-4)
    assert torch.equal(bias.detach(), torch.full((3,), 0.5))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.float(), torch.full((4, 5), 2e-4), rtol=1e-3, atol=0)
    before = weight.detach().clone()
    weight.grad.fill_(float("inf"))
    scaler.step(optimizer)
    assert torch.equal(weight, before)
    assert optimizer.steps == 1
