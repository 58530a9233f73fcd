import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dstrun.loss import check
from dstrun.loss.plain import Plain
from dstrun.system.trouble import ConfigError


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return self.scale * cross_entropy(logits, labels)


def scaled(logits, labels, by):
    return by * cross_entropy(logits, labels)


def test_a_function_is_called_with_its_settings_and_a_class_is_made_with_them():
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    function = Plain(part={"_target_": f"{__name__}.scaled", "by": 2.0}).build(3, "cpu")
    torch.testing.assert_close(function(x, y), 2 * cross_entropy(x, y))
    made = Plain(part={"_target_": "torch.nn.MultiMarginLoss", "margin": 0.5}).build(3, "cpu")
    torch.testing.assert_close(made(x, y), nn.MultiMarginLoss(margin=0.5)(x, y))


WRONG = {
    "returns a tensor of shape (4,)": lambda x, y: cross_entropy(x, y, reduction="none"),
    "returns float": lambda x, y: 1.0,
    "returns a number without gradient": lambda x, y: cross_entropy(x.detach(), y),
    "is not the mean over samples": lambda x, y: cross_entropy(x, y, reduction="sum"),
    "cannot be called with logits (4, 3) and labels (4)": lambda x, y: x @ y,
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_mean_over_samples_is_refused(said):
    with pytest.raises(ConfigError) as error:
        check(WRONG[said], "wrong", 3, "cpu")
    assert f"loss=wrong {said}" in str(error.value)


def test_parameters_that_nothing_trains_are_refused():
    with pytest.raises(ConfigError, match="has parameters, which nothing trains"):
        Plain(part={"_target_": f"{__name__}.Learned"}).build(3, "cpu")
