"""Adam with ages: torch's own until connections grow, and for a grown connection an Adam that starts with it."""

import copy

import pytest
import torch
from torch import nn

from dstrun.optimizer import aged
from dstrun.optimizer.aged import AgedAdam, age_type

BOTH = pytest.mark.parametrize("decoupled", [True, False], ids=["adamw", "adam"])


def pair(decoupled, *, decay=0.1, shape=(5, 7), dtype=torch.float32, betas=(0.9, 0.999)):
    """Two parameters under ours, the first to be aged, and the same under torch's."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, dtype=dtype)) for _ in range(2)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return (
        AgedAdam(ours, 0.01, betas, weight_decay=decay, decoupled=decoupled),
        kind(theirs, 0.01, betas, weight_decay=decay),
        list(zip(ours, theirs, strict=True)),
    )


def step(ours, theirs, pairs):
    for a, b in pairs:
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    ours.step()
    theirs.step()


@BOTH
def test_without_growth_it_is_torchs_own(decoupled):
    ours, theirs, pairs = pair(decoupled)
    for _ in range(5):
        step(ours, theirs, pairs)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert ours.state[pairs[0][0]].keys() == theirs.state[pairs[0][1]].keys()


@BOTH
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99), (0.9, 0.0), (0.9, 0.99999)])
def test_with_ages_and_nothing_grown_it_differs_by_rounding(decoupled, betas, monkeypatch):
    monkeypatch.setattr(aged, "BLOCK", 8)  # 35 numbers in five parts
    ours, theirs, pairs = pair(decoupled, dtype=torch.float64, betas=betas)
    for number in range(30):
        if number == 3:
            ours.before_growth(pairs[0][0])
        step(ours, theirs, pairs)
    torch.testing.assert_close(*pairs[0], rtol=1e-12, atol=1e-14)
    assert torch.equal(*pairs[1]), "what has no ages stays torch's"
    assert ours.state[pairs[0][0]]["age"].unique().tolist() == [30]


@BOTH
def test_what_grows_moves_as_under_an_adam_that_starts_with_it(decoupled):
    ours, theirs, pairs = pair(decoupled, decay=0.0)
    for _ in range(300):
        step(ours, theirs, pairs)
    weight = pairs[0][0]
    ours.before_growth(weight)
    for tensor in (weight.detach(), *(ours.state[weight][key] for key in ("exp_avg", "exp_avg_sq", "age"))):
        tensor[2, 3] = 0
    alone = nn.Parameter(torch.zeros(()))
    adam = torch.optim.Adam([alone], 0.01)
    for _ in range(100):
        step(ours, theirs, pairs)
        alone.grad = weight.grad[2, 3].clone()
        adam.step()
        torch.testing.assert_close(weight[2, 3], alone, rtol=1e-5, atol=1e-7)
    others = torch.ones(5, 7, dtype=torch.bool)
    others[2, 3] = False
    torch.testing.assert_close(weight[others], pairs[0][1][others])


def test_ages_take_two_bytes_and_stop_where_they_no_longer_matter():
    assert age_type((0.9, 0.999)) is torch.int16
    assert age_type((0.9, 0.9999)) is age_type((0.99999, 0.9)) is torch.int32
    ours, theirs, pairs = pair(True)
    step(ours, theirs, pairs)
    weight = pairs[0][0]
    ours.state[weight]["step"].fill_(100_000)
    theirs.state[pairs[0][1]]["step"].fill_(100_000)
    ours.before_growth(weight)
    for _ in range(3):
        step(ours, theirs, pairs)
    assert ours.state[weight]["age"].unique().tolist() == [32767]
    torch.testing.assert_close(*pairs[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_state_goes_on_the_same(dtype):
    ours, theirs, pairs = pair(True, dtype=dtype)
    step(ours, theirs, pairs)
    weight = pairs[0][0]
    ours.state[weight]["step"].fill_(1001)  # which bfloat16 cannot hold
    ours.before_growth(weight)
    ours.state[weight]["age"][0] = 0
    again = [nn.Parameter(p.detach().clone()) for p, _ in pairs]
    other = AgedAdam(again, 0.01, weight_decay=0.1)
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    for a, b in zip([p for p, _ in pairs], again, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    ours.step()
    other.step()
    assert all(torch.equal(a, b) for (a, _), b in zip(pairs, again, strict=True))
    assert other.state[again[0]]["age"].dtype is torch.int16
    assert other.state[again[0]]["age"][:, 0].tolist() == [1, 1002, 1002, 1002, 1002]


def test_a_parameter_without_a_gradient_does_not_age():
    ours, theirs, pairs = pair(True)
    step(ours, theirs, pairs)
    weight = pairs[0][0]
    ours.before_growth(weight)
    before, weight.grad = weight.detach().clone(), None
    ours.step()
    assert torch.equal(weight, before)
    assert ours.state[weight]["age"].unique().tolist() == [1]


def test_hooks_around_a_step_are_called_once():
    ours, theirs, pairs = pair(True)
    step(ours, theirs, pairs)
    ours.before_growth(pairs[0][0])
    calls = []
    ours.register_step_pre_hook(lambda *_: calls.append("before"))
    ours.register_step_post_hook(lambda *_: calls.append("after"))
    step(ours, theirs, pairs)
    assert calls == ["before", "after"]


@pytest.mark.gpu
def test_on_a_gpu_the_same_but_for_rounding():
    ours, theirs, pairs = pair(True, shape=(300, 70))
    device = torch.device("cuda")
    there = [nn.Parameter(p.detach().to(device)) for p, _ in pairs]
    other = AgedAdam(there, 0.01, weight_decay=0.1)
    for number in range(30):
        if number == 5:
            for a, b in zip([p for p, _ in pairs], there, strict=True):
                ours.before_growth(a)
                other.before_growth(b)
                ours.state[a]["age"][3] = other.state[b]["age"][3] = 0
        step(ours, theirs, pairs)
        for (a, _), b in zip(pairs, there, strict=True):
            b.grad = a.grad.to(device)
        other.step()
    for (a, _), b in zip(pairs, there, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-6)
        assert torch.equal(other.state[b]["age"].cpu(), ours.state[a]["age"])
