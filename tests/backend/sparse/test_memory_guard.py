"""Nothing of a sparse layer's dense size is ever made: no tensor on the way, and what stays is small."""

import sys

import fork_server
import pytest
import torch
from method_setting import setting
from pair import METHODS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dstrun.backend import search
from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.config.composition import compose
from dstrun.layer.interface import skeleton
from dstrun.layer.topology import Topology
from dstrun.optimizer.sgd import SGD

DENSITY = 0.02


class Guard(TorchDispatchMode):
    """Fails where an operation gives a tensor with as many numbers as a layer has connections, or more."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                assert leaf.numel() < self.size, f"{func} made {tuple(leaf.shape)}"
        return result


def perceptron():
    return nn.Sequential(*(nn.Linear(512, 512) for _ in range(3))), torch.randn(8, 512)


def convolutions():
    layers = [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(64, 64, 3, stride=2, groups=2)), torch.randn(2, 64, 4, 4)


WORDS = {name: [*words, "schedule.interval_steps=2"] for name, words in METHODS.items()}
WORDS["deepr"] = ["method=deepr", "method.noise=weights", "method.temperatures=[1,1,1,1]"]
WORDS["deepr"] += ["method.recipe_steps=100", "method.recipe_report_steps=2"]
WORDS["dsr"] = ["method=dsr", "method.recipe_steps=100", "method.periods=[2,2,2,2]"]
SCOPES = {"mest": ("layer",), "bound": ("layer",), "dsr": ("global",)}

NETWORKS = {"perceptron": perceptron, "convolutions": convolutions}


def train(backend, make, method, scope="layer", steps=4):
    """Build a network, train it with updates on every second step, save, load and evaluate it; under guard."""
    torch.manual_seed(0)
    with skeleton():
        model, x = make()
    sizes = [m.weight.numel() for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
    experiment = compose(["model=mlp", "dataset=digits", *WORDS[method]])
    with Guard(min(sizes)):
        layers = backend.sparsify(model, [round(DENSITY * size) for size in sizes])
        optimizer = SGD(lr=0.01, momentum=0.9).build(model.parameters())
        for layer in layers:
            layer.optimizer = optimizer
        parts = {group: experiment.build(group) for group in ("prune", "grow", "schedule")}
        counts = [layer.count for layer in layers]
        given = setting(layers, **parts, scope=scope, counts=counts, model=model, optimizer=optimizer)
        procedure = experiment.build("method").procedure(given)
        updates = [procedure.prepare()]
        for step in range(1, steps + 1):
            updates += [procedure.before_step(step)]
            (model(x) - 1).square().mean().backward()
            updates += [procedure.after_backward(step)]
            if updates[-1] is None:
                for layer in layers:
                    layer.confine_gradient()
                optimizer.step()
            updates += [procedure.after_step(step)]
            optimizer.zero_grad()
        torch.save({"model": model.state_dict(), "layers": [layer.state() for layer in layers]}, "state.pt")
        state = torch.load("state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        for layer, kept in zip(layers, state["layers"], strict=True):
            layer.load_state(kept)
        with torch.no_grad():
            model.eval()(x)
    return [update for update in updates if update is not None]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "BLOCK", 1 << 14)


@pytest.mark.parametrize(("method", "scope"), [(m, s) for m in WORDS for s in SCOPES.get(m, ("layer", "global"))])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_training_makes_nothing_of_the_dense_size(make, method, scope):
    updates = train(sparse, make, method, scope)
    assert len(updates) == (3 if method == "bound" else 2)  # a soft bound is there before the first step
    assert all(sum(change.grown for change in update.changes) > 0 for update in updates)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_guard_sees_masked_layers(make):
    with pytest.raises(AssertionError, match="made"):
        train(masked, make, "set")


def test_bytes_at_rest():
    """Weights, gradients, momentum and all that says which connections are active: 24 bytes each at the most."""
    model = nn.Sequential(nn.Linear(4096, 4096, bias=False, device="meta"))
    (layer,) = sparse.sparsify(model, [335_544])
    optimizer = SGD(lr=0.01, momentum=0.9).build(model.parameters())
    model(torch.randn(2, 4096)).sum().backward()
    optimizer.step()
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    tensors = [layer.weight, layer.weight.grad, *states, *model.buffers(), *layer.index()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert len(storages) == 3 + 5 + 1  # rows, inputs, columns, outputs, order; the sample of explored ones
    assert sum(storages.values()) / layer.count <= 24


HUGE = """
import torch
from torch import nn
from dstrun.backend.sparse import layer as sparse
from dstrun.layer.interface import skeleton

def high():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

sparse.sparsify(nn.Sequential(nn.Linear(9, 9)), [9])  # what is loaded and compiled
before = high()
with skeleton():
    model = nn.Sequential(nn.Linear(1_000_000, 1_000_000))
(layer,) = sparse.sparsify(model, [{count}])
print(layer.count, high() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("count", [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_a_layer_of_10_to_the_12_connections(count, tmp_path):
    """60 bytes an active connection while it is drawn and sorted, and 100 MB for its inputs and outputs."""
    (tmp_path / "huge.py").write_text(HUGE.format(count=count))
    done = fork_server.run([sys.executable, str(tmp_path / "huge.py")], capture_output=True, text=True, check=True)
    found, high = map(int, done.stdout.split())
    assert found == count
    assert high < 60 * count + 100e6


def test_nearly_full_topologies_need_little_more_than_their_positions():
    with Guard(1000 * 1000):
        assert Topology.random((1000, 1000), 600_000, torch.Generator().manual_seed(0)).count == 600_000
