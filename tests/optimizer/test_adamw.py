import pytest
import torch
from torch import nn

from dstrun.optimizer.adamw import AdamW
from dstrun.option import ConfigError


def test_builds_the_torch_optimizer():
    built = AdamW(lr=0.3, betas=[0.8, 0.99], weight_decay=0.02).build(nn.Linear(2, 2).parameters())
    assert type(built) is torch.optim.AdamW
    (group,) = built.param_groups
    settings = {k: group[k] for k in ("lr", "betas", "weight_decay", "amsgrad")}
    assert settings == {"lr": 0.3, "betas": (0.8, 0.99), "weight_decay": 0.02, "amsgrad": False}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0.9], "optimizer.betas=[0.9] must be two numbers"),
        ([0.9, 0.99, 0.999], "optimizer.betas=[0.9, 0.99, 0.999] must be two numbers"),
        ([0.9, 1], "optimizer.betas=1 must lie in [0, 1)"),
        (0.9, "optimizer.betas=0.9 must be a list such as [1,2]"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ConfigError) as error:
        AdamW(betas=wrong)
    assert str(error.value) == message
