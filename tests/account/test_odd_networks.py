"""What the counter does not know is said, never dropped: networks of other layers, by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dstrun.account.unpruned import FROZEN, OTHER, UNUSED
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.layer.interface import prunable
from dstrun.report.unpruned import not_prunable
from dstrun.run.assemble import assemble
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan, planned_memory
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

WORDS = ["model=mlp", "dataset=digits", "sparsity=0.8", "epochs=1", "batch_size=64", "optimizer.lr=0.01"]
WORDS += ["threads=1"]
OFTEN = ["schedule.interval_steps=2", "schedule.end=1"]
CPU = torch.device("cpu")


def odd(kind: str, *words: str) -> Experiment:
    made = compose([*WORDS, *(words or ("method=set", *OFTEN))])
    made.config["model"] = {"_target_": "odd_layers.OddLayers", "kind": kind}
    return made


def built(kind: str) -> nn.Module:
    """Build the network as it is, apart from what is tested."""
    model = odd(kind).build("model").build((1, 8, 8), 10)
    model(torch.zeros(2, 1, 8, 8))  # sizes of lazy layers
    return model


HEAD = 2 * 10
"""FLOPs a feature of a last layer for ten classes."""

LSTM, GRU = (8 * 2 * gates * 12 * (8 + 12) for gates in (4, 3))  # steps, multiply and add, gates, units, inputs
STEM, GROUPED = 2 * 8 * 12 * 8 * 3, 2 * 4 * 12 * 4 * 3
CONV3D = 2 * (1 * 4 * 8) * 6 * 27
UP, CONV, MIRROR = 2 * 64 * 4 * 4, 2 * 14 * 14 * 16 * 9, 2 * 14 * 14 * 16 * 9
ENCODER = 2 * 8 * (4 * 8 * 8 + 2 * 8 * 16)
CROSS = 2 * (8 * 8 + 2 * 8 * 8 * 8 + 8 * 8)  # one query, eight keys and values, one output
ATTENTION = 2 * 2 * 8 * 8 * 8 + 2 * 2 * 8 * 8
FUNCTIONAL = {"raw": 2 * 16 * 64, "held": 2 * 256, "vector": 2 * 16, "pair": 2 * 16 * 16 * 8, "norm": 2 * 64}
BACKBONE = 2 * 36 * 4 * 9 + 2 * 16 * 16 * 9

CASES: dict[str, tuple[dict[str, int], dict[str, tuple[str, int, str]], int]] = {
    "lstm": ({"head": 12 * HEAD}, {"rnn": ("LSTM", LSTM, OTHER)}, 0),
    "gru": ({"head": 12 * HEAD}, {"rnn": ("GRU", GRU, OTHER)}, 0),
    "conv1d": ({"stem": STEM, "grouped": GROUPED, "head": 48 * HEAD}, {}, 0),
    "conv3d": ({"head": 6 * HEAD}, {"conv3d": ("Conv3d", CONV3D, OTHER)}, 0),
    "transposed": (
        {"conv": CONV, "head": 4 * HEAD},
        {"up": ("ConvTranspose2d", UP, OTHER), "mirror": ("Conv2d", MIRROR, OTHER)},
        0,
    ),
    "embedding": ({"head": 6 * HEAD}, {"embed": ("Embedding", 0, OTHER)}, 0),
    "attention": (
        {f"encoder.self_attn.{name}_proj": 2 * 8 * 64 for name in ("q", "k", "v", "out")}
        | {"encoder.linear1": 2 * 8 * 128, "encoder.linear2": 2 * 8 * 128}
        | {"cross.q_proj": 128, "cross.k_proj": 2 * 8 * 64, "cross.v_proj": 2 * 8 * 64, "cross.out_proj": 128}
        | {"head": 8 * HEAD},
        {"query": ("Parameter", 0, OTHER)},
        ATTENTION,
    ),
    "functional": (
        {"head": 8 * HEAD},
        {
            "raw": ("Parameter", FUNCTIONAL["raw"], OTHER),
            "vector": ("Parameter", FUNCTIONAL["vector"], OTHER),
            "held": ("Linear", FUNCTIONAL["held"], "its weight is used without calling it"),
            "pair": ("Bilinear", FUNCTIONAL["pair"], OTHER),
            "norm": ("ParametrizedLinear", FUNCTIONAL["norm"], OTHER),
        },
        0,
    ),
    "idle": (
        {"body": 2 * 16 * 64, "head": 16 * HEAD},
        {
            "aux_head": ("Sequential", 0, UNUSED),
            "target": ("Linear", 2 * 16 * 64, "no gradient reaches it"),
            "whole": ("Linear", 2 * 256, "kept dense"),
        },
        0,
    ),
    "frozen": (
        {"body": 2 * 16 * 64, "head": 16 * HEAD},
        {"backbone": ("Sequential", BACKBONE, FROZEN)},
        0,
    ),
    "lazy": ({"0": 2 * 36 * 4 * 9, "4": 2 * 144 * 16, "6": 16 * HEAD}, {}, 0),
}
cases = pytest.mark.parametrize("kind", CASES)


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan without predicting memory, which takes longest and tells nothing of what is counted."""
    monkeypatch.setattr("dstrun.run.plan.predict_memory", lambda experiment: {})


@cases
def test_everything_is_counted(kind: str) -> None:
    layers, others, attention = CASES[kind]
    cost, model = Blueprint(odd(kind)).cost, built(kind)
    assert {x.name: 2 * x.macs for x in cost.layers} == layers
    assert {x.name: (x.kind, x.flops, x.why) for x in cost.unpruned} == others
    assert cost.fixed == sum(flops for _, flops, _ in others.values())
    assert cost.forward() == sum(layers.values()) + cost.fixed
    assert cost.attention == attention
    everything = sum(p.numel() for p in model.parameters())
    assert cost.parameters == everything
    named = sum(part.parameters for part in cost.unpruned) + sum(x.size for x in cost.layers)
    vectors = [p for name, p in model.named_parameters() if p.dim() == 1 and not name.startswith(tuple(others))]
    assert everything - named == sum(p.numel() for p in vectors)


@cases
def test_no_connection_is_no_flop_but_of_what_is_not_pruned(kind: str) -> None:
    cost = Blueprint(odd(kind)).cost
    assert cost.forward([0] * len(cost.layers)) == cost.fixed


@pytest.mark.parametrize(
    "kind", ["conv1d", "conv3d", "transposed", "embedding", "functional", "idle", "frozen", "lazy"]
)
def test_training_executes_what_is_counted(kind: str) -> None:
    """A masked step under PyTorch's counter.

    It has no formula for Bilinear and for products with vectors, and takes a grouped weight gradient for a whole one.
    """
    training = assemble(odd(kind, "method=rigl", *OFTEN), CPU)
    training.model.train()
    training.take_step()
    before = training.flops.executed
    with FlopCounterMode(display=False) as counter:
        training.take_step()
    missed = {"functional": 4 * FUNCTIONAL["pair"] + 3 * FUNCTIONAL["vector"], "conv1d": -2 * GROUPED}.get(kind, 0)
    assert counter.get_total_flops() == training.flops.executed - before - 64 * missed


@cases
def test_memory_is_predicted(kind: str) -> None:
    assert planned_memory(odd(kind))["peak_bytes"] > 0


METHODS = ["method=set", "method=rigl", *(f"method=gse subset={s}" for s in ("uniform", "grabo", "graest"))]
SOME = [(kind, METHODS[n % len(METHODS)]) for n, kind in enumerate(CASES)]
SOME += [("vision", "method=rigl")]
SOME += [(kind, method) for kind in ("conv1d", "attention") for method in METHODS if (kind, method) not in SOME]


@pytest.mark.usefixtures("without_memory")
@pytest.mark.parametrize(("kind", "method"), SOME)
def test_it_trains_and_the_plan_counts_the_same(kind: str, method: str) -> None:
    experiment = odd(kind, *method.split(), *OFTEN)
    training = assemble(experiment, CPU)
    training.model.train()
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    while training.step < training.total_steps:
        training.take_step()
    assert training.updates > 0
    assert torch.isfinite(training.loss_sum)
    idle = {"frozen": ("backbone",), "idle": ("aux_head", "target")}.get(kind, ())
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(idle) or not parameter.any(), name
    for layer in training.layers:
        assert layer.explored() > layer.count / layer.topology.size or layer.count == layer.topology.size, layer.name
    planned = plan(experiment)
    counted = training.flops.record(training.active(), training.nominal_steps * 64)
    assert {key: planned["flops"][key] for key in counted} == counted
    assert planned["not_prunable"] == Blueprint(experiment).not_prunable


@pytest.mark.parametrize("kind", ["conv1d", "attention", "lstm", "vision"])
def test_on_sparse_storage_the_topology_is_the_same(kind: str) -> None:
    masked, sparse = (assemble(odd(kind, "method=gse", *OFTEN, f"backend={b}"), CPU) for b in ("masked", "sparse"))
    for training in (masked, sparse):
        training.model.train()
        for _ in range(4):
            training.take_step()
    assert sparse.updates > 0
    for one, other in zip(masked.layers, sparse.layers, strict=True):
        assert torch.equal(one.topology.positions, other.topology.positions), one.name
        torch.testing.assert_close(one.values(), other.values(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["attention", "vision"])
def test_a_dense_start_keeps_the_weights_that_attention_was_built_with(kind: str) -> None:
    experiment = odd(kind, "method=gmp")
    training = assemble(experiment, CPU)
    from dstrun.system.stream import stream

    torch.manual_seed(stream(0, "model"))
    plain = experiment.build("model").build((1, 8, 8), 10).eval()
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(training.model.eval()(x), plain(x), rtol=1e-4, atol=1e-5)


def test_a_frozen_backbone_keeps_its_weights_in_a_sparse_start() -> None:
    training = assemble(odd("frozen"), CPU)
    assert all(p.detach().any() for p in training.model.backbone[0].parameters())
    assert [name for name, _ in prunable(training.model)] == ["body", "head"]


def test_a_lazy_layer_without_a_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model=mlp cannot be counted: never is lazy and never called, so"):
        _ = Blueprint(odd("unsized")).cost


@pytest.mark.parametrize(
    ("forward", "given"),
    [
        (lambda logits: (logits, 3), "a tuple"),
        (lambda logits: {"logits": logits}, "a dict"),
        (lambda logits: logits[:, 1:], "a tensor of shape (1, 9)"),
        (lambda logits: logits.repeat(1, 2), "a tensor of shape (1, 20)"),
        (lambda logits: logits[None], "a tensor of shape (1, 1, 10)"),
    ],
)
def test_what_is_no_logits_is_refused(forward: Callable[[torch.Tensor], Any], given: str) -> None:
    class Odd(nn.Sequential):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(super().forward(x))

    option = SimpleNamespace(build=lambda image, classes: Odd(nn.Flatten(), nn.Linear(64, classes)))
    with pytest.raises(ConfigError) as refused:
        Blueprint(odd("lstm")).outline(option)
    assert str(refused.value) == f"model=mlp returns {given} for one image: it must return logits, (1, 10) here"


def test_what_fails_on_an_image_is_refused_with_its_line() -> None:
    class Odd(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise KeyError("nosuch")

    option = SimpleNamespace(build=lambda image, classes: Odd(64, classes))
    with pytest.raises(
        ConfigError, match=r"shape \(1, 1, 8, 8\): KeyError: 'nosuch' \(test_odd_networks\.py, line \d+"
    ):
        Blueprint(odd("lstm")).outline(option)


def test_other_outputs_in_training_are_said() -> None:
    training: Any = SimpleNamespace(label_smoothing=0.0)
    with pytest.raises(TypeError, match="returns a tuple in training: it must return logits"):
        Training.loss(training, (torch.zeros(1, 10), 3), torch.zeros(1, dtype=torch.long))  # type: ignore[arg-type]


@pytest.mark.usefixtures("without_memory")
def test_a_network_without_a_prunable_layer_trains_dense_alone() -> None:
    with pytest.raises(ConfigError, match=r"^model=mlp has no layer that can be pruned: set method=dense$"):
        plan(odd("recurrent only"))
    planned = plan(odd("recurrent only", "method=dense", "sparsity=0"))
    assert planned["flops"]["inference"] == planned["flops"]["fixed_inference"] == 2 * 3 * 10 * (64 + 10)
    assert planned["flops"]["train_x_dense"] == 1


def test_what_is_printed() -> None:
    blueprint = Blueprint(odd("idle"))
    cost = blueprint.cost
    lines = not_prunable(blueprint.not_prunable, 1000 * 10, cost.forward())
    assert lines == [
        "not prunable: target (Linear, no gradient reaches it, 10.4 % of parameters, 41.6 % of FLOPs), "
        "whole (Linear, kept dense, 2.7 % of parameters, 10.4 % of FLOPs)",
        "never used in the forward pass: aux_head (Sequential, 4.7 % of parameters)",
    ]
    many = [dataclasses.asdict(cost.unpruned[0]) | {"name": f"head{n}", "parameters": n + 1} for n in range(12)]
    (line,) = not_prunable(many, 100, cost.forward())
    assert line.startswith("never used in the forward pass: head11 (Sequential, 12.0 % of parameters), head10 (")
    assert line.endswith(", 4 more (10.0 % of parameters)")
    assert not_prunable([], 100, 1) == []


@pytest.mark.usefixtures("without_memory")
def test_flops_that_no_sparsity_touches_are_counted_as_dense_in_both() -> None:
    experiment = odd("lstm")
    flops = plan(experiment)["flops"]
    assert flops["fixed_inference"] == LSTM
    assert flops["inference"] == LSTM + 24 * 2
    assert flops["inference_x_dense"] == (LSTM + 48) / (LSTM + 240)
    assert flops["train_x_dense"] == flops["inference_x_dense"]
    assert "not prunable included" in flops["convention"]


@pytest.mark.usefixtures("without_memory")
def test_nothing_is_said_of_a_network_of_prunable_layers() -> None:
    cost = Blueprint(compose(["model=resnet20", "dataset=digits"])).cost
    assert (cost.unpruned, cost.fixed) == ((), 0)
    assert "not prunable" not in plan(compose(["model=mlp", "dataset=digits"]))["flops"]["convention"]


def test_a_vit_of_torchvision() -> None:
    """Parameters and MACs, attention products among these, are those that torchvision states: 86,567,656, 17.564 G."""
    experiment = compose(["model=mlp", "dataset=imagenet", "method=rigl", "sparsity=0.9"])
    experiment.config["model"] = {"_target_": "odd_layers.Torchvision", "name": "vit_b_16"}
    cost = Blueprint(experiment).cost
    assert cost.parameters == 86_567_656
    layers = 196 * 3 * 16 * 16 * 768 + 12 * 197 * (4 * 768**2 + 2 * 768 * 3072) + 768 * 1000
    attention = 12 * 2 * 197**2 * 768
    assert (cost.forward(), cost.fixed, cost.attention) == (2 * layers, 0, 2 * attention)
    assert round((layers + attention) / 1e9, 3) == 17.564
    assert len(cost.layers) == 1 + 12 * 6 + 1
    assert [part.name for part in cost.unpruned] == ["class_token", "encoder.pos_embedding"]
