"""What of an optimizer's state a rewiring carries over, and what it refuses to leave stale."""

import pytest
import torch
from torch import nn

from dstrun.backend.masked import layer as masked
from dstrun.backend.sparse import layer as sparse
from dstrun.layer.interface import carried
from dstrun.system.trouble import ConfigError

NONE = torch.empty(0, dtype=torch.int64)
backends = pytest.mark.parametrize("backend", [masked, sparse], ids=["masked", "sparse"])


def layer_of(backend, optimizer):
    """Make a layer of 6 among 12 connections that has taken a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    (layer,) = backend.sparsify(model, [6])
    layer.optimizer = optimizer([layer.weight])
    model(torch.ones(2, 4)).square().sum().backward()
    layer.confine_gradient()
    layer.optimizer.step()
    return layer


def free(layer, count=1):
    return torch.tensor([p for p in range(12) if p not in layer.topology.positions.tolist()][:count])


class Keeps(torch.optim.SGD):
    """Keeps something else for every weight."""

    def __init__(self, parameters, kept):
        super().__init__(parameters, 0.1, momentum=0.9)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {"momentum_buffer": torch.ones_like(parameter), **kept}


@backends
@pytest.mark.parametrize(
    ("key", "optimizer"),
    [
        ("step", torch.optim.AdamW),
        ("mu_product", torch.optim.NAdam),
        ("count", lambda p: Keeps(p, {"count": 3})),
        ("scale", lambda p: Keeps(p, {"scale": torch.ones(1)})),
    ],
)
def test_a_number_is_stale_once_connections_grow_and_not_before(backend, key, optimizer):
    layer = layer_of(backend, optimizer)
    layer.rewire(layer.topology.positions[:2], NONE)
    before, values = layer.topology.positions, layer.values().clone()
    if key == "mu_product":
        del layer.optimizer.state[layer.weight]["step"]
    with pytest.raises(
        ConfigError, match=f"keeps '{key}' for .*, which is stale once connections grow: choose"
    ) as error:
        layer.rewire(before[:1], free(layer))
    assert type(layer.optimizer).__name__ in str(error.value)
    assert torch.equal(layer.topology.positions, before)
    assert torch.equal(layer.values(), values)


@backends
@pytest.mark.parametrize("kept", [torch.ones(3), {"left": [torch.ones(3, 3)]}, (torch.ones(12, 2),)])
def test_state_of_another_shape_is_stale_once_connections_are_pruned(backend, kept):
    layer = layer_of(backend, lambda p: Keeps(p, {"row": kept}))
    with pytest.raises(
        ConfigError, match=r"Keeps keeps 'row' for .*, which is stale once connections are pruned: choose"
    ):
        layer.rewire(layer.topology.positions[:2], NONE)
    assert layer.count == 6


@backends
def test_what_says_nothing_of_connections_is_no_matter(backend):
    kept = {"none": None, "word": "nesterov", "flag": True, "empty": torch.empty(0), "list": [], "second": None}
    layer = layer_of(backend, lambda p: Keeps(p, kept))
    layer.rewire(layer.topology.positions[:2], free(layer, 2))
    assert carried(layer, grows=True).keys() == {"momentum_buffer"}
    buffer = layer.optimizer.state[layer.weight]["momentum_buffer"]
    assert buffer.shape == layer.weight.shape


@backends
def test_an_optimizer_may_see_to_it_itself(backend):
    class Ready(Keeps):
        def before_growth(self, weight):
            self.state[weight]["age"] = torch.full_like(weight, 5, dtype=torch.int32)

    layer = layer_of(backend, lambda p: Ready(p, {"step": 5}))
    layer.rewire(layer.topology.positions[:1], NONE)
    assert "age" not in layer.optimizer.state[layer.weight]
    grown = free(layer)
    layer.rewire(NONE, grown)
    age = layer.optimizer.state[layer.weight]["age"].flatten()
    at = layer.topology.positions if backend is masked else slice(None)
    assert age[at].tolist() == [0 if p == grown else 5 for p in layer.topology.positions.tolist()]


@backends
def test_there_may_be_no_optimizer_or_no_step_yet(backend):
    (layer,) = backend.sparsify(nn.Sequential(nn.Linear(4, 3)), [6])
    assert carried(layer, grows=True) == {}
    layer.optimizer = torch.optim.AdamW([layer.weight])
    layer.rewire(layer.topology.positions[:1], free(layer))
    assert layer.optimizer.state == {}
