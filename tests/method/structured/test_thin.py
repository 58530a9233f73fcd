import pytest
import torch

from dstrun.config.composition import compose
from dstrun.method.structured.thin import Thin
from dstrun.model.mlp import MLP
from dstrun.model.resnet_imagenet import ResNet50
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan
from dstrun.system.trouble import ConfigError

WORDS = ["method=thin", "dataset=digits", "model=resnet20", "model.width=0.5", "epochs=2", "threads=1"]
WHY = "makes no sense with method=thin, which trains a dense network of less width"


def meta(image, classes):
    def build(option):
        with torch.device("meta"):
            return option.build(image, classes)

    return build


def weights(option, image=(3, 224, 224), classes=1000):
    return sum(p.numel() for p in meta(image, classes)(option).parameters() if p.ndim > 1)


@pytest.mark.parametrize(("budget", "width", "hidden"), [(40, 1.0, 4), (39, 0.999, 3), (30, 0.999, 3), (20, 0.749, 2)])
def test_the_largest_width_within_the_budget_by_hand(budget, width, hidden):
    """Six inputs, four hidden units, four classes: 10 weights a hidden unit."""
    found = Thin().network(MLP(hidden=(4,)), meta((1, 2, 3), 4), budget)
    assert found.width == width
    assert Thin().counts(meta((1, 2, 3), 4)(found), budget) == [6 * hidden, 4 * hidden]


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.8, 0.9, 0.98])
def test_no_wider_network_is_within_the_budget(sparsity):
    full = ResNet50()
    budget = round((1 - sparsity) * weights(full))
    found = Thin().network(full, meta((3, 224, 224), 1000), budget)
    assert weights(found) <= budget
    assert found == full or weights(ResNet50(width=found.width + 0.001)) > budget


@pytest.mark.parametrize(("sparsity", "width"), [(0.8, 0.465), (0.9, 0.34), (0.95, 0.26)])
def test_widths_published_match_bytes_with_one_bit_a_weight_for_the_mask(sparsity, width):
    """Evci et al. 2020: a sparse network is N (1 - s) numbers of 32 bits and N bits, N (1 - s) + N / 32 numbers."""
    share = weights(ResNet50(width=width)) / weights(ResNet50())
    assert share == pytest.approx(1 - sparsity + 1 / 32, rel=0.03)


def test_it_is_refused_where_one_channel_a_layer_is_too_much_or_there_is_no_width():
    with pytest.raises(ConfigError) as error:
        Thin().network(MLP(hidden=(4,)), meta((1, 2, 3), 4), 8)
    assert str(error.value) == (
        "sparsity=0.8 makes no sense with method=thin on this network: one channel a layer leaves at most 0.7500"
    )
    with pytest.raises(ConfigError) as error:
        Thin().network(object(), lambda option: torch.nn.Linear(2, 2), 8)
    assert str(error.value) == "method=thin makes no sense with model object, which has no width"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["allocation=erk"], f"allocation=erk {WHY}"),
        (["backend=sparse"], f"backend=sparse {WHY}"),
        (["scope=global"], f"scope=global {WHY}"),
        (["method.epochs_factor=0.5"], "method.epochs_factor=0.5 must be at least 1"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(ConfigError) as error:
        compose(["method=thin", *words])
    assert str(error.value) == message


def test_plan_and_run_count_the_thin_network_relative_to_the_full_one():
    made = compose([*WORDS, "sparsity=0.8", "method.epochs_factor=1.5"])
    planned, training = plan(made), assemble(made, torch.device("cpu"))
    blueprint = Blueprint(made)
    full = blueprint.cost
    sizes = [p.numel() for p in blueprint.trained.model.parameters() if p.ndim > 1]
    assert training.active() == blueprint.counts == sizes
    assert sizes == [p.numel() for p in training.model.parameters() if p.ndim > 1]
    assert planned["parameters"]["prunable"] == sum(layer.size for layer in full.layers) > 4 * sum(sizes)
    assert planned["parameters"]["active"] == sum(p.numel() for p in training.model.parameters())
    assert planned["parameters"]["sparsity"] >= 0.8
    while training.step < training.total_steps:
        training.take_step()
    assert training.total_steps == 1.5 * training.nominal_steps
    record = training.flops.record(training.active(), training.nominal_steps * made.config["batch_size"])
    assert {key: planned["flops"][key] for key in record} == record
    assert record["train_x_dense"] == pytest.approx(1.5 * record["inference_x_dense"])
    own, samples = blueprint.built, training.total_steps * made.config["batch_size"]
    assert record["inference"] == own.forward()
    assert record["executed_train"] == own.executed([False] * len(sizes), training.products()) * samples
