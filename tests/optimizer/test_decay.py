"""Weight decay on every parameter, or on the weights of layers alone."""

import pytest
import torch
from torch import nn

from dstrun.config.composition import compose
from dstrun.optimizer.decay import groups
from dstrun.run.assemble import assemble


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2))


def test_all_is_one_group_as_given() -> None:
    model = net()
    (group,) = groups(model, model.parameters(), "all")
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


def test_weights_spare_biases_and_norms() -> None:
    model = net()
    decayed, spared = groups(model, model.parameters(), "weights")
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[4].weight)}
    assert (spared["weight_decay"], len(spared["params"])) == (0.0, 6)
    assert "weight_decay" not in decayed


@pytest.mark.parametrize("backend", ["masked", "sparse"])
def test_a_step_without_gradient_shrinks_the_weights_alone(backend: str) -> None:
    words = ["model=resnet20", "model.width=0.25", "dataset=digits", "method=set", "sparsity=0.8"]
    words += [f"backend={backend}", "optimizer.decay=weights", "optimizer.weight_decay=0.1"]
    training = assemble(compose(words), torch.device("cpu"))
    before = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.optimizer.step()
    weights = {layer.name for layer in training.layers}
    for name, value in training.model.named_parameters():
        module, _, leaf = name.rpartition(".")
        shrunk = module in weights and leaf == "weight"
        torch.testing.assert_close(value, before[name] * (0.99 if shrunk else 1.0))


def test_a_group_that_a_method_keeps_apart_keeps_its_decay() -> None:
    model = net()
    own = {"params": [model[4].weight], "weight_decay": 0.5, "apart": True}
    rest = {"params": [p for p in model.parameters() if p is not model[4].weight], "weight_decay": 0.1}
    found = groups(model, [rest, own], "weights")
    assert [group["weight_decay"] for group in found] == [0.1, 0.0, 0.5]
