"""Each layer is stored as what was measured to train faster; the answer is kept."""

import json

import pytest
import torch
from torch import nn

from dstrun.backend import auto
from dstrun.backend import sparse as sparse_traits
from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.config.composition import compose
from dstrun.layer.interface import skeleton
from dstrun.run.assemble import assemble
from dstrun.system.trouble import ConfigError
from dstrun.train import checkpoint

CPU = torch.device("cpu")
INPUTS = [(8, 3, 6, 6), (8, 4)]


def network():
    with skeleton():
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
        return nn.Sequential(*layers)


def test_the_faster_is_chosen_and_remembered(tmp_path, monkeypatch):
    measured = []

    def measure(module, count, shape, device, backends):
        measured.append(shape)
        return {"masked": 1.0, "sparse": 2.0 if len(shape) == 4 else 0.5}

    monkeypatch.setattr(auto, "measure", measure)
    cache = tmp_path / "cache" / "backend.json"
    for _ in range(2):
        assert auto.choose(network(), [50, 10], INPUTS, CPU, cache) == ["masked", "sparse"]
    assert measured == INPUTS
    assert len(json.loads(cache.read_text())) == 2
    auto.choose(network(), [20, 10], INPUTS, CPU, cache)
    assert len(measured) == 3  # another density is measured anew


DAMAGE = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"k": 1' + b" " * 10**7 + b"}"]
WRONG = [None, 1, [], {}, {"masked": 1.0}, {"masked": 0.0, "sparse": 1.0}, {"masked": 1e400, "sparse": 1.0},
         {"masked": -1.0, "sparse": 1.0}, {"masked": "a", "sparse": 1.0}, {"masked": True, "sparse": 1.0}]  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGE, *WRONG], ids=str)
def test_what_is_no_measurement_is_measured_again(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda *_: {"masked": 1.0, "sparse": 0.5})
    cache = tmp_path / "backend.json"
    assert auto.choose(network(), [50, 10], INPUTS, CPU, cache) == ["sparse", "sparse"]
    whole = cache.read_bytes()
    cache.write_bytes(
        damage if isinstance(damage, bytes) else json.dumps(dict.fromkeys(json.loads(whole), damage)).encode()
    )
    assert auto.choose(network(), [50, 10], INPUTS, CPU, cache) == ["sparse", "sparse"]
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("cache", ["file/backend.json", "folder"])
def test_a_cache_that_cannot_be_written_is_done_without(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda *_: {"masked": 1.0, "sparse": 0.5})
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert auto.choose(network(), [50, 10], INPUTS, CPU, tmp_path / cache) == ["sparse", "sparse"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_is_measured_is_both_backends():
    module = network()[4]
    assert set(found := auto.measure(module, 10, (8, 4), CPU, ["masked", "sparse"])) == {"masked", "sparse"}
    assert min(found.values()) > 0
    assert module.weight.is_meta  # the network's own layer stays as it is


def test_a_layer_too_large_to_measure_is_sparse(tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "LARGEST", 1)
    assert auto.choose(network(), [50, 10], INPUTS, CPU, tmp_path / "none.json") == ["sparse", "sparse"]


@pytest.mark.parametrize(("triton", "linear"), [(True, "sparse"), (False, "masked")])
def test_what_has_no_kernel_on_a_gpu_is_masked(triton, linear, tmp_path, monkeypatch):
    monkeypatch.setattr(sparse_traits, "find_spec", lambda name: triton or None)
    monkeypatch.setattr(auto, "measure", lambda *_: {"masked": 1.0, "sparse": 0.5})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")
    gpu, cache = torch.device("cuda", 0), tmp_path / "backend.json"
    assert auto.choose(network(), [50, 10], INPUTS, gpu, cache) == ["masked", linear]


def test_a_gpu_without_triton_is_told(monkeypatch):
    monkeypatch.setattr(sparse_traits, "find_spec", lambda name: None)
    auto.check_kernels(network(), "sparse", CPU)
    with pytest.raises(ConfigError, match="needs Triton on a GPU, and it is not installed: install it"):
        auto.check_kernels(network()[4:], "sparse", torch.device("cuda"))


@pytest.mark.parametrize("backends", [["masked", "sparse"], ["sparse", "masked"]])
def test_a_mixed_network_computes_what_a_masked_one_does(backends):
    mixed, plain = network(), network()
    layers = auto.sparsify(mixed, [50, 10], backends, seed=1)
    masked.sparsify(plain, [50, 10], seed=1)
    assert [layer.backend for layer in layers] == backends
    assert isinstance(mixed[0], sparse.Conv2d) == (backends[0] == "sparse")
    x = torch.randn(8, 3, 6, 6)
    torch.testing.assert_close(mixed(x), plain(x), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_keeps_the_choice(tmp_path):
    chosen = ["sparse", "masked", "sparse"]
    experiment = compose(["model=mlp", "dataset=digits", "method=static", "sparsity=0.8", "backend=auto"])
    training = assemble(experiment, CPU, chosen)
    assert [layer.backend for layer in training.layers] == chosen
    assert checkpoint.backends(tmp_path / "checkpoint.pt") is None
    checkpoint.save(tmp_path / "checkpoint.pt", training)
    assert checkpoint.backends(tmp_path / "checkpoint.pt") == chosen
