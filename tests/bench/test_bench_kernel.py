"""All implementations compute the same; their times are nobody's business here."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

from dstrun.bench import kernel, layout, peer
from dstrun.bench.arguments import Kernel
from dstrun.bench.shapes import SHAPES, Shape, find

CPU = torch.device("cpu")
CONVOLUTION, LINEAR = Shape(4, 6, 5), Shape(20, 12, items=2)


def expected(given: kernel.Problem) -> list[torch.Tensor]:
    """Return output, input gradient and the active entries of the weight's gradient by autograd."""
    x, weight = given.x.clone().requires_grad_(), given.dense().requires_grad_()
    y = functional.conv2d(x, weight, padding=1) if x.dim() == 4 else functional.linear(x, weight)
    y.backward(given.delta)
    assert x.grad is not None
    assert weight.grad is not None
    return [y.detach(), x.grad, weight.grad.flatten()[given.topology.positions]]


def canonical(name: str, key: str, found: torch.Tensor, given: kernel.Problem) -> torch.Tensor:
    if key == kernel.WEIGHT:
        if found.layout == torch.sparse_csr:
            return found.values()
        return found if name.startswith("sparse") or name == "torch coo" else found.flatten()[given.topology.positions]
    if name.startswith("torch"):
        return found.t()
    if name.startswith("sparse"):
        return found.permute(3, 0, 1, 2) if given.x.dim() == 4 else found.flatten(1).t()
    return found


@pytest.mark.parametrize("shape", [CONVOLUTION, LINEAR], ids=["convolution", "linear"])
def test_implementations_agree(shape: Shape) -> None:
    given = kernel.problem(shape, 0.8, 3, CPU)
    want = expected(given)
    made = kernel.implementations(given, reference=True)
    others = {"dense channels_last"} if shape.side else {"torch coo", "torch csr"}
    assert set(made) == {"dense", *others, "masked", "sparse", "sparse reference"}
    for name, implementation in made.items():
        assert list(implementation.passes) == [kernel.FORWARD, kernel.INPUT, kernel.WEIGHT]
        for (key, run), right in zip(implementation.passes.items(), want, strict=True):
            found = canonical(name, key, run(), given)
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4, msg=lambda m, n=name, k=key: f"{n} {k}: {m}")


def test_masked_gradient_is_zero_elsewhere() -> None:
    given = kernel.problem(LINEAR, 0.8, 3, CPU)
    gradient = kernel.masked(given).passes[kernel.WEIGHT]()
    assert int((gradient != 0).sum()) == given.topology.count  # type: ignore[union-attr]


def test_sparsity_is_exact_and_the_problem_the_same_every_time() -> None:
    one, two = (kernel.problem(SHAPES["R56-s1"], 0.95, 2, CPU) for _ in range(2))
    assert one.topology.count == round(0.05 * 16 * 16 * 9)
    assert torch.equal(one.values, two.values)
    assert torch.equal(one.x, two.x)
    assert one.x.shape == (2, 16, 32, 32)
    assert kernel.problem(SHAPES["ViT192-768"], 0.9, 2, CPU).delta.shape == (128, 768)


def test_bytes_are_of_what_is_stored() -> None:
    given = kernel.problem(LINEAR, 0.8, 3, CPU)
    size, active = 20 * 12, given.topology.count
    assert kernel.tensor_bytes(kernel.dense(given).stored) == 4 * size
    assert kernel.tensor_bytes(kernel.masked(given).stored) == 12 * size
    assert kernel.tensor_bytes(kernel.torch_csr(given).stored) == 16 * active + 4 * (13 + 21)
    assert kernel.tensor_bytes(kernel.torch_coo(given).stored) == 2 * (2 * 8 + 4) * active


@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_are_the_matrix(transposed: bool) -> None:
    given = kernel.problem(LINEAR, 0.8, 3, CPU)
    want = given.dense().t() if transposed else given.dense()
    for made in (layout.coo, layout.csr):
        assert torch.equal(made(given.topology, given.values, transposed).to_dense(), want)
    # What promises to be coalesced is: sorted by row, then column, each position once.
    indices = layout.coo(given.topology, given.values, transposed).indices()
    assert bool(((indices[0] * want.shape[1] + indices[1]).diff() > 0).all())


def test_a_linear_layer_of_any_size_has_a_name() -> None:
    assert find("12-7") == Shape(12, 7)
    assert kernel.problem(find("12-7"), 0.9, 2, CPU).delta.shape == (2, 7)
    assert find("R56-s1") is SHAPES["R56-s1"]
    for name in ("12-0", "0-7", "12-", "-12-7", "12-7-3", "a12-7"):
        with pytest.raises(KeyError):
            find(name)


def test_a_tiny_run_gives_rows(monkeypatch, capsys) -> None:
    monkeypatch.setitem(SHAPES, "tiny", CONVOLUTION)
    (rows,) = kernel.measure(Kernel(layers=("tiny",), sparsity=(0.8,), batch=2, rounds=2))
    assert {(row["implementation"], row["pass"]) for row in rows} == {
        (name, key)
        for name in ("dense", "dense channels_last", "masked", "sparse")
        for key in (kernel.FORWARD, kernel.INPUT, kernel.WEIGHT, "sum")
    }
    assert all(row["rounds"] == 2 and 0 < row["q1"] <= row["median"] <= row["q3"] for row in rows)
    assert "tiny at 80%" in capsys.readouterr().err


def test_a_peer_is_timed_where_it_is_installed_and_named_where_not(monkeypatch, capsys) -> None:
    made = types.ModuleType("stranger")
    made.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]

    def layer(_geometry, weight: torch.Tensor, _bias: None) -> nn.Module | None:
        if weight.dim() > 2:
            return None
        module = nn.Linear(*weight.shape[::-1], bias=False)
        module.weight.data = weight
        return module

    monkeypatch.setattr(kernel, "PEERS", {"stranger": peer.Peer("stranger", layer)})
    monkeypatch.setitem(SHAPES, "tiny", LINEAR)
    settings = Kernel(layers=("tiny",), sparsity=(0.8,), batch=2, rounds=1)
    (rows,) = kernel.measure(settings)
    assert "stranger is not installed: not compared" in capsys.readouterr().err
    assert "stranger" not in {row["implementation"] for row in rows}
    monkeypatch.setitem(sys.modules, "stranger", made)
    (rows,) = kernel.measure(settings)
    passes = {row["pass"]: row for row in rows if row["implementation"] == "stranger"}
    assert set(passes) == {"forward", "both gradients", "sum"}
    assert passes["sum"]["x_median"] > 0
    assert passes["sum"]["bytes"] == 4 * 20 * 12
    given = kernel.problem(CONVOLUTION, 0.8, 3, CPU)
    assert "stranger" not in kernel.implementations(given)
