from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dstrun.bench import peer, step
from dstrun.bench.arguments import Step
from dstrun.config.composition import compose
from dstrun.layer.geometry import Geometry, LinearGeometry
from dstrun.run.assemble import assemble
from dstrun.run.noise import NoiseExperiment
from dstrun.system.trouble import ConfigError

TINY = Step(model="mlp", batch=8, rounds=2, sparsity=(0.8,))


def test_a_tiny_run_gives_steps_and_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path))
    (rows,) = step.measure(TINY)
    found = {(row["implementation"], row["pass"]): row for row in rows}
    dynamic = [f"{backend} {method}" for backend in ("masked", "sparse") for method in ("gse", "rigl")]
    both = {(name, key) for name in [*dynamic, "auto gse"] for key in ("step", "update")}
    assert set(found) == both | {("dense", "step"), ("torch csr", "step")}
    assert all(row["rounds"] == 2 and row["median"] > 0 for row in rows)
    assert {row["implementation"] for row in rows if not row["bytes"]} == {"torch csr"}
    assert found["sparse gse", "step"]["bytes"] < found["masked gse", "step"]["bytes"]
    assert found["sparse gse", "step"]["x_median"] == 1.0


@pytest.mark.parametrize("name", ["masked gse", "sparse rigl"])
def test_steps_and_updates_alternate(name: str) -> None:
    passes, training = step.start(step.words(TINY, 0.8, "cpu")[name], torch.device("cpu"))
    assert list(passes) == ["step", "update"]
    assert set(training.memory.peaks) == {"step", "update"}
    for run in passes.values():
        passes_of_topology = training.updates
        updates = run()
        kind = "update" if updates else "step"
        assert passes[kind] is not None
        assert (training.updates > passes_of_topology) == (kind == "update")
    assert training.step == 6
    assert training.updates == 3


def test_images_are_noise_of_the_right_size() -> None:
    _, training = step.start(step.words(TINY, 0.8, "cpu")["dense"], torch.device("cpu"))
    x, y = training.data.batch(0)
    assert x.shape == (8, 3, 32, 32)
    assert training.data.train_count == 16
    assert int(y.max()) < 10


def masked(model: str = "mlp") -> Any:
    composed = compose(step.words(Step(model=model, batch=8), 0.8, "cpu")["masked gse"])
    return assemble(NoiseExperiment(composed.config, composed.choices), torch.device("cpu"))


def test_networks_of_csr_matrices_compute_what_masked_ones_do() -> None:
    training = masked()
    x, y = training.data.batch(0)

    def gradients() -> tuple[Tensor, list[Tensor]]:
        training.model.zero_grad(set_to_none=True)
        logits = training.model(x)
        training.loss(logits, y).backward()
        return logits.detach(), [p.grad for p in training.model.parameters() if p.grad is not None]

    logits, before = gradients()
    active = [layer.topology.positions for layer in training.layers]
    layers = peer.NETWORKS["torch csr"].replace(training.model, training.layers)
    assert [type(layer) for layer in layers] == [peer.CsrLinear] * 3
    again, after = gradients()
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)
    for old, new in zip(before, after, strict=True):
        if new.layout == torch.sparse_csr:
            torch.testing.assert_close(new.values(), old.flatten()[active.pop(0)], rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
    assert not active


def test_csr_layers_keep_leading_dimensions() -> None:
    weight, bias = torch.randn(5, 4).relu(), nn.Parameter(torch.randn(5))
    layer = peer.NETWORKS["torch csr"].layer(LinearGeometry((5, 4)), weight, bias)
    assert layer is not None
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, bias), rtol=1e-4, atol=1e-5)


def test_convolutions_have_no_csr_and_packages_may_be_missing() -> None:
    training = masked("resnet20")
    with pytest.raises(ConfigError, match=r"it has no layer for conv1, Conv2d\(3, 16"):
        peer.NETWORKS["torch csr"].replace(training.model, training.layers)
    with pytest.raises(ConfigError, match="stranger is not installed"):
        peer.Peer("stranger", lambda *_: None).replace(training.model, training.layers)


def test_a_peer_trains_a_network_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def layer(geometry: Geometry, weight: Tensor, bias: nn.Parameter | None) -> nn.Module:
        module = nn.Linear(*weight.shape[::-1])
        module.weight.data, module.bias = weight, bias
        return module

    only = {"dense", "sparse gse", "stranger"}
    stranger = {"stranger": peer.Peer("stranger", layer)}
    words: Callable[..., dict[str, list[str]]] = step.words
    monkeypatch.setattr(step, "NETWORKS", stranger)
    monkeypatch.setattr(step, "words", lambda *given: {k: w for k, w in words(*given).items() if k in only})
    (rows,) = step.measure(TINY)
    assert "left out: stranger is not installed" in capsys.readouterr().err
    assert "stranger" not in {row["implementation"] for row in rows}
    made = types.ModuleType("stranger")
    made.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "stranger", made)
    (rows,) = step.measure(TINY)
    (row,) = (row for row in rows if row["implementation"] == "stranger")
    assert row["pass"] == "step"
    assert row["x_median"] > 0


def test_a_step_of_a_peer_moves_all_weights() -> None:
    overrides = step.words(TINY, 0.8, "cpu")["masked gse"]
    seen: list[nn.Module] = []

    class Sees(peer.Peer):
        def replace(self, model: nn.Module, layers: Any) -> list[nn.Module]:
            seen.append(model)
            return super().replace(model, layers)

    run = step.start_peer(Sees("torch", peer.NETWORKS["torch csr"].layer), overrides, torch.device("cpu"))["step"]
    weights = [w.values() if w.layout == torch.sparse_csr else w for w in map(torch.detach, seen[0].parameters())]
    before = [weight.clone() for weight in weights]
    run()
    assert not any(torch.equal(old, new) for old, new in zip(before, weights, strict=True))


def test_a_layer_that_reads_memory_gets_it_in_order() -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.is_contiguous()
            return x

    assert peer._Contiguous(Reads())(torch.ones(2, 3).t()).shape == (3, 2)
