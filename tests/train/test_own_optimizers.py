"""Parameters that a method trains by itself: at a rate of their own, on the schedule of the weights'."""

from __future__ import annotations

import pytest
import torch

from dstrun.config.composition import compose
from dstrun.run.assemble import assemble
from dstrun.train.training import Training

SMALL = ["dataset=digits", "model=mlp", "epochs=3", "batch_size=256", "threads=1"]


def start(*words: str) -> Training:
    training = assemble(compose([*SMALL, *words]), torch.device("cpu"))
    training.model.train()
    return training


def trained_by(optimizers) -> list[int]:
    return [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize(
    "words", ["method=str method.threshold_lr=0.2", "method=autosparse method.threshold_lr=0.2",
              "method=sss method.factor_lr=0.2"],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_rate_is_its_own_and_follows_the_schedule(words, optimizer):
    training = start(*words.split(), f"optimizer={optimizer}", "optimizer.lr_schedule=cosine", "optimizer.lr_warmup=0")
    (own,) = training.procedure.own
    last = training.total_steps
    for step in range(1, 4):
        training.take_step()
        share = training.rate.lr_at(step - 1, last) / training.rate.lr
        assert own.param_groups[0]["lr"] == pytest.approx(0.2 * share)
        assert training.optimizer.param_groups[0]["lr"] == pytest.approx(training.rate.lr * share)
        assert all(p.grad is None for group in own.param_groups for p in group["params"])


@pytest.mark.parametrize("method", ["str", "autosparse", "sss"])
def test_every_parameter_has_one_optimizer(method):
    training = start(f"method={method}", "optimizer=adamw")
    found = trained_by(training.optimizers)
    assert len(set(found)) == len(found)
    assert set(found) == {id(p) for p in training.model.parameters()}


@pytest.mark.parametrize("method", ["str", "autosparse"])
def test_the_decay_of_thresholds_does_not_hang_on_the_weights_optimizer(method):
    """Gradients barely move s at first: after ten steps it has come as far under AdamW as under SGD."""
    words = [f"method={method}", "method.threshold_decay=0.1", "method.recipe_steps=1"]
    words += ["optimizer.lr_schedule=constant", "optimizer.lr_warmup=0"]
    ends = []
    for optimizer in ("sgd", "adamw"):
        training = start(*words, f"optimizer={optimizer}")
        for _ in range(10):
            training.take_step()
        ends.append([threshold.s.item() for threshold in training.procedure.modules])
    start_of = training.procedure.method.s_init
    assert all(0.95 * start_of < s < 0.6 * start_of for s in ends[0])
    assert ends[0] == pytest.approx(ends[1], rel=0.05)


def test_scaled_gradients_are_of_their_true_size_for_them_too():
    """fp16 multiplies the loss by 65,536: taken as they are, such gradients would send every factor to 0 or far off."""
    ends = []
    for precision in ("fp32", "fp16"):
        training = start("method=sss", f"precision={precision}")
        for _ in range(2):
            training.take_step()
        ends.append(torch.cat([factor.detach() for factor in training.procedure.factors]))
    torch.testing.assert_close(ends[0], ends[1], atol=0.05, rtol=0)
