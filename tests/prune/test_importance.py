import pytest
import torch
from torch import nn

from dstrun.backend.masked.layer import MaskedLayer
from dstrun.backend.sparse.layer import Linear
from dstrun.config.composition import compose
from dstrun.layer.selection import lowest
from dstrun.layer.topology import Topology
from dstrun.prune.importance import Importance
from dstrun.system.trouble import ConfigError

# Eight weights: half active. |w| + 0.1 |g| = 0.5 + 0.9, 0.1 + 0.3, 0.2 + 0.01, 0.9 + 0.9.
WEIGHTS = {0: 0.5, 1: -0.1, 4: 0.2, 6: -0.9}
GRADIENT = [9.0, 3.0, -2.5, 1.0, 0.1, 2.0, -9.0, 0.0]


def both():
    positions = torch.tensor(sorted(WEIGHTS))
    module = nn.Linear(4, 2, bias=False)
    masked = MaskedLayer("fc", module, Topology((2, 4), positions))
    masked.set_values(torch.tensor([WEIGHTS[p] for p in sorted(WEIGHTS)]))
    sparse = Linear.from_dense(module, masked.topology)
    for layer, net in ((masked, module), (sparse, sparse)):
        (net(torch.eye(4)) * torch.tensor(GRADIENT).view(2, 4).T).sum().backward()
        layer.confine_gradient()
    return [masked, sparse]


@pytest.mark.parametrize("index", [0, 1], ids=["masked", "sparse"])
def test_by_hand(index):
    layer = both()[index]
    scores = Importance(coefficient=0.1).score(layer, torch.Generator())
    assert scores.tolist() == pytest.approx([1.4, 0.4, 0.21, 1.8])
    assert lowest(scores, 2).tolist() == [2, 1]
    assert Importance(coefficient=0).score(layer, torch.Generator()).tolist() == pytest.approx([0.5, 0.1, 0.2, 0.9])


@pytest.mark.parametrize("index", [0, 1], ids=["masked", "sparse"])
def test_a_gradient_that_overflowed_counts_as_none(index):
    layer = both()[index]
    layer.add_gradient(torch.tensor([float("inf"), float("nan"), 0, -float("inf")]))
    assert Importance(coefficient=0.1).score(layer, torch.Generator()).tolist() == pytest.approx([0.5, 0.1, 0.21, 0.9])


@pytest.mark.parametrize("grow", ["gse", "gradient"])
@pytest.mark.parametrize("backend", ["masked", "sparse"])
@pytest.mark.parametrize("batch", ["current", "fresh"])
def test_growth_by_gradients_is_refused(grow, backend, batch):
    with pytest.raises(ConfigError) as error:
        compose(["prune=importance", f"grow={grow}", f"backend={backend}", f"method.batch={batch}"])
    assert str(error.value) == (
        f"prune=importance makes no sense with grow={grow}: both need the gradient at an update, and growth takes it"
    )


def test_methods_that_need_no_gradient_for_growth_take_it():
    for method in ("set", "gmp"):
        assert compose([f"method={method}", "prune=importance"]).choices["prune"] == "importance"
