"""A network of several backends computes what any does; mixtures come from times of layers and of conversions."""

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


def test_what_is_measured_is_both_backends():
    module = network()[4]
    assert set(found := auto.measure(module, 10, (8, 4), CPU, ["masked", "sparse"])) == {"masked", "sparse"}
    assert min(found.values()) > 0
    assert module.weight.is_meta  # the network's own layer stays as it is


@pytest.mark.parametrize("first", [False, True])
def test_layers_are_timed_with_a_gradient_of_their_input_but_the_first(first):
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append(x.requires_grad)
            return super().forward(x)

    auto.measure(Looks(4, 5), 10, (8, 4), CPU, ["masked"], first)
    assert set(seen) == {not first}


def test_conversions_are_timed_both_ways():
    found = auto.conversions(nn.Conv2d(3, 4, 3), (8, 3, 6, 6), CPU)
    assert set(found) == {("masked", "sparse"), ("sparse", "masked")}
    assert min(found.values()) > 0


def timed(monkeypatch, turned):
    """Make the convolution faster masked, by 1, the linear layer sparse, by 2; a conversion takes ``turned``."""
    asked = []

    def measure(module, count, shape, device, backends, first):
        asked.append((shape, first))
        seconds = {"masked": 1.0, "sparse": 2.0} if len(shape) == 4 else {"masked": 3.0, "sparse": 1.0}
        return {name: seconds[name] for name in backends}

    pairs = {("masked", "sparse"): turned, ("sparse", "masked"): turned}
    monkeypatch.setattr(auto, "measure", measure)
    monkeypatch.setattr(auto, "conversions", lambda *_: pairs)
    return asked


@pytest.mark.parametrize(("turned", "found"), [(0.9, ["masked", "sparse"]), (1.1, ["sparse", "sparse"])])
def test_a_mixture_pays_for_its_conversions(turned, found, monkeypatch):
    asked = timed(monkeypatch, turned)
    assert auto.mixed(network(), [50, 10], INPUTS, CPU, [["masked", "sparse"]] * 2, 10) == found
    assert asked == [(INPUTS[0], True), (INPUTS[1], False)]


def test_a_mixture_takes_what_can_train_a_layer(monkeypatch):
    timed(monkeypatch, 9.0)
    assert auto.mixed(network(), [50, 10], INPUTS, CPU, [["masked"], ["sparse"]], 10) == ["masked", "sparse"]


def test_layers_alike_are_timed_once_and_a_search_that_takes_long_is_given_up(monkeypatch):
    asked = timed(monkeypatch, 0.1)
    deep = nn.Sequential(*[nn.Linear(4, 4) for _ in range(9)])
    able = [["masked", "sparse"]] * 9
    assert auto.mixed(deep, [8] * 9, [(8, 4)] * 9, CPU, able, 10) == ["sparse"] * 9
    assert len(asked) == 2  # the first has no gradient of its input
    assert auto.mixed(deep, [8] * 9, [(8, 4)] * 9, CPU, able, -1) is None


def test_a_layer_too_large_for_dense_storage_is_sparse(monkeypatch):
    monkeypatch.setattr(auto, "LARGEST", 30)
    assert auto.able(network(), CPU) == [["sparse"], ["masked", "sparse"]]
    assert auto.uniform(auto.able(network(), CPU)) == {"masked": ["sparse", "masked"], "sparse": ["sparse", "sparse"]}


@pytest.mark.parametrize(("triton", "kinds"), [(True, ["masked", "sparse"]), (False, ["masked"])])
def test_what_has_no_kernel_on_a_gpu_is_masked(triton, kinds, monkeypatch):
    monkeypatch.setattr(sparse_traits, "find_spec", lambda name: triton or None)
    able = auto.able(network(), torch.device("cuda", 0))
    assert able == [["masked"], kinds]
    assert auto.uniform(able) == {name: ["masked", name] for name in kinds}


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
