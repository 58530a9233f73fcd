import pytest
import torch
from torch import nn

from dstrun.optimizer.sgd import SGD
from dstrun.system.trouble import ConfigError


def test_builds_the_torch_optimizer():
    model = nn.Linear(2, 2)
    built = SGD(lr=0.3, momentum=0.8, weight_decay=0.02, nesterov=True).build(model.parameters())
    assert type(built) is torch.optim.SGD
    (group,) = built.param_groups
    settings = {k: group[k] for k in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
    assert settings == {"lr": 0.3, "momentum": 0.8, "dampening": 0, "weight_decay": 0.02, "nesterov": True}
    assert group["params"] == list(model.parameters())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"momentum": 1}, "optimizer.momentum=1 must be in [0, 1)"),
        ({"nesterov": True, "momentum": 0}, "optimizer.nesterov=true makes no sense with optimizer.momentum=0"),
        ({"nesterov": 1}, "optimizer.nesterov=1 must be true or false"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ConfigError) as error:
        SGD(**wrong)
    assert str(error.value) == message
