import pytest
from torch import nn

from dstrun.optimizer.adam import Adam
from dstrun.optimizer.adamw import AdamW
from dstrun.optimizer.aged import AgedAdam
from dstrun.system.trouble import ConfigError

both = pytest.mark.parametrize(("option", "decoupled"), [(Adam, False), (AdamW, True)], ids=["adam", "adamw"])


@both
def test_builds_adam_with_ages(option, decoupled):
    built = option(lr=0.3, betas=[0.8, 0.99], weight_decay=0.02).build(nn.Linear(2, 2).parameters())
    assert type(built) is AgedAdam
    (group,) = built.param_groups
    settings = {k: group[k] for k in ("lr", "betas", "weight_decay", "decoupled_weight_decay", "amsgrad")}
    assert settings == {
        "lr": 0.3, "betas": (0.8, 0.99), "weight_decay": 0.02, "decoupled_weight_decay": decoupled, "amsgrad": False,
    }  # fmt: skip


@both
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0.9], "optimizer.betas=[0.9] must be two numbers"),
        ([0.9, 0.99, 0.999], "optimizer.betas=[0.9, 0.99, 0.999] must be two numbers"),
        ([0.9, 1], "optimizer.betas=1 must be in [0, 1)"),
        (0.9, "optimizer.betas=0.9 must be a list such as [1,2]"),
    ],
)
def test_wrong_settings(option, decoupled, wrong, message):
    with pytest.raises(ConfigError) as error:
        option(betas=wrong)
    assert str(error.value) == message
