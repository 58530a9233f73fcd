import pytest
import torch

from dstrun.model.mlp import MLP
from dstrun.system.trouble import ConfigError


def test_lenet_300_100_counts(count):
    found = count(MLP(hidden=(300, 100)), (1, 28, 28), 10)
    assert (found.layers, found.prunable, found.total) == (3, 266_200, 266_610)
    assert found.macs == found.prunable


def test_width_scales_hidden_layers_only():
    model = MLP(hidden=(30, 10), width=1.5).build((1, 8, 8), 7)
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(45, 64), (15, 45), (7, 15)]


def test_computes_what_its_equation_says():
    model = MLP(hidden=(5,)).build((2, 3, 3), 4)
    x = torch.randn(6, 2, 3, 3)
    first, second = model.fc1, model.fc2
    by_hand = (x.flatten(1) @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(model(x), by_hand)


def test_no_hidden_layer_is_a_linear_classifier(count):
    assert count(MLP(hidden=()), (1, 8, 8), 10).prunable == 640


def test_gradients_flow(learns):
    learns(MLP(hidden=(30, 20)), (3, 8, 8), 10)


def test_a_hidden_layer_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.hidden=0 must be at least 1$"):
        MLP(hidden=(300, 0))
