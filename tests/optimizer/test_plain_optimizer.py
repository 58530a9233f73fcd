import pytest
import torch
from torch import nn

from dstrun.config.plain import adapted
from dstrun.layer.interface import carried
from dstrun.optimizer.plain import Plain
from dstrun.system.trouble import ConfigError


class Rateless(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"gain": 1.0})


class Layer:
    """What ``carried`` asks a layer, after a step."""

    name = "fc"

    def __init__(self, name, **settings):
        module = nn.Linear(3, 2)
        node = adapted("optimizer", {"_target_": f"torch.optim.{name}", **settings})
        self.optimizer = Plain(**{k: v for k, v in node.items() if k not in ("_target_", "_recursive_")}).build(
            module.parameters()
        )
        self.weight = module.weight
        module(torch.randn(4, 3)).sum().backward()
        self.optimizer.step()


def test_rate_and_decay_are_those_said_or_of_the_class():
    assert Layer("AdamW").optimizer.param_groups[0]["weight_decay"] == 0.01
    (group,) = Layer("RMSprop", lr=0.5, weight_decay=0.25, alpha=0.75).optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["alpha"]) == (0.5, 0.25, 0.75)


GROWS = [("SGD", {}), ("RMSprop", {"momentum": 0.9}), ("Adadelta", {}), ("Adagrad", {})]


@pytest.mark.parametrize(("name", "settings"), GROWS)
def test_an_optimizer_that_reads_no_count_has_connections_grow(name, settings):
    layer = Layer(name, **settings)
    assert all(value.shape == layer.weight.shape for value in carried(layer, grows=True).values())


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "Adamax", "Rprop", "ASGD"])
def test_one_whose_count_would_be_stale_is_refused_as_soon_as_connections_grow(name):
    layer = Layer(name)
    with pytest.raises(ConfigError, match="is stale once connections grow"):
        carried(layer, grows=True)


def test_adagrad_whose_rate_falls_with_its_count_is_refused():
    layer = Layer("Adagrad", lr_decay=0.1)
    with pytest.raises(ConfigError, match="stale"):
        carried(layer, grows=True)


def test_what_has_no_rate_is_refused():
    with pytest.raises(ConfigError, match="Rateless has no lr in its param_groups"):
        Plain(part={"_target_": f"{__name__}.Rateless"}).build(nn.Linear(2, 2).parameters())
    with pytest.raises(ConfigError, match="Linear cannot be built"):
        Plain(part={"_target_": "torch.nn.Linear"}).build(nn.Linear(2, 2).parameters())
