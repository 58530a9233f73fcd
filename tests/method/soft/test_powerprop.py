"""Powerpropagation by hand, beside the methods it goes with, and refused beside those it does not."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from dstrun.config.composition import compose
from dstrun.method.soft.powerprop import Power, reparametrize
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError

COMMON = ["dataset=digits", "model=mlp", "epochs=2", "threads=1", "optimizer.lr=0.05"]


def eight() -> nn.Linear:
    """w = -4, -1, -0.25, 0, 0.25, 1, 2.25, 4."""
    module = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-4.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.25, 4.0]]))
    return module


def test_by_hand_with_power_two() -> None:
    """v = sign(w) sqrt|w|; w = v |v|; dL/dv = 2 |v| dL/dw."""
    module = eight()
    weights = module.weight.detach().clone()
    reparametrize(nn.Sequential(module), 2.0)
    v = module.parametrizations["weight"].original
    assert v.detach().flatten().tolist() == pytest.approx([-2, -1, -0.5, 0, 0.5, 1, 1.5, 2])
    torch.testing.assert_close(module.weight.detach(), weights)
    module(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])).sum().backward()
    assert v.grad.flatten().tolist() == pytest.approx([4, 4, 3, 0, 5, 12, 21, 32])


def test_by_hand_with_power_three() -> None:
    """w = v^3: 8 comes from 2, and its gradient is 3 v^2 = 12 times that of w."""
    v = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0], requires_grad=True)
    w = Power(3.0)(v)
    assert w.tolist() == pytest.approx([-8, -1, -0.125, 0, 0.125, 1, 8, 27])
    w.sum().backward()
    assert v.grad.tolist() == pytest.approx([12, 3, 0.75, 0, 0.75, 3, 12, 27])


@pytest.mark.parametrize("power", [1.5, 2.0, 4.0])
def test_right_inverse_and_order(power: float) -> None:
    w = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = Power(power)
    v = made.right_inverse(w)
    torch.testing.assert_close(made(v), w)
    assert torch.equal(v.abs().argsort(), w.abs().argsort())
    assert torch.autograd.gradcheck(made, (w.clone().requires_grad_(),))


def test_layers_that_share_a_weight_go_on_doing_so() -> None:
    one, other = eight(), eight()
    other.weight = one.weight
    weights = one.weight.detach().clone()
    model = nn.Sequential(one, other)
    reparametrize(model, 2.0)
    torch.testing.assert_close(one.weight, weights)
    torch.testing.assert_close(other.weight, weights)
    assert len(list(model.parameters())) == 1
    one.weight.sum().backward()
    assert other.parametrizations["weight"].original.grad[0, 0] == 4


def test_power_one_leaves_the_network_alone() -> None:
    module = eight()
    reparametrize(nn.Sequential(module), 1.0)
    assert not hasattr(module, "parametrizations")


def training(*words: str):
    """Assemble a run."""
    threads = torch.get_num_threads()
    made = assemble(compose([*COMMON, *words]), torch.device("cpu"))
    torch.set_num_threads(threads)
    made.model.train()
    return made


@pytest.mark.parametrize("name", ["dense", "static", "snip", "gmp", "topkast", "topk_ga"])
def test_beside_a_method_it_keeps_the_start_and_the_budget_and_continues(name: str) -> None:
    words = [f"method={name}"] + (["sparsity=0.8"] if name != "dense" else [])
    plain, powered = training(*words), training(*words, "powerprop=2")
    x, _ = plain.data.batch(0)
    torch.testing.assert_close(plain.model(x), powered.model(x), rtol=1e-3, atol=1e-4)
    powered.prepare()
    powered.take_step()
    saved = io.BytesIO()
    torch.save(powered.state(), saved)
    saved.seek(0)
    other = training(*words, "powerprop=2")
    other.load_state(torch.load(saved, weights_only=True))
    for run in (powered, other):
        while run.step < run.total_steps:
            run.take_step()
    for one, two in zip(powered.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    if name != "dense":
        assert sum(powered.active()) == round(0.2 * sum(powered.sizes))
        used = sum(layer.module.weight.count_nonzero().item() for layer in powered.layers)
        assert used == sum(powered.active())


@pytest.mark.parametrize("name", ["gse", "set", "rigl"])
def test_refused_where_connections_appear_at_zero(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([f"method={name}", "powerprop=2"])
    assert str(error.value) == (
        f"powerprop=2 makes no sense with method={name}: a weight that starts at 0 gets no gradient and never moves"
    )


def test_refused_on_the_sparse_backend() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["method=static", "powerprop=2", "backend=sparse"])
    assert str(error.value) == "powerprop=2 makes no sense with backend=sparse: it needs dense storage"
