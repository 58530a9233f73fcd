"""What a configuration counts, and values that others counted to hold it against: the kinds of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from dstrun.account.flops import NetworkCost
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.run.blueprint import Blueprint
from dstrun.run.plan import plan_flops

R50 = "model=resnet50 dataset=imagenet"

COUNT = "independent count"
"""From the layers' shapes and the definition, apart from this code."""

RIGL = "RigL's README"
NOTEBOOK = "RigL's notebook"
GSE = "GSE's supplement"


@dataclass(frozen=True)
class Planned:
    """What a configuration counts: the network's layers, the active connections of each, the ``flops`` group.

    Attributes:
        parameters: of the network.
        unpruned: weights of layers that are not prunable.
        channels: outputs of all layers; of a depthwise convolution one in all, as RigL's counter has it.
    """

    experiment: Experiment
    cost: NetworkCost
    active: list[int]
    flops: dict[str, Any]
    parameters: int
    unpruned: int
    channels: int

    def layer(self, name: str) -> int:
        """Find a layer by name."""
        return [layer.name for layer in self.cost.layers].index(name)

    def megabytes(self) -> float:
        """Count the model's size as RigL's authors do, in 10^6 bytes.

        4 bytes a kept weight and an output of a layer (one number, whether a bias or a normalization follows), 1 bit a
        weight of every layer that is not dense.
        """
        masked = sum(x.size for x, a in zip(self.cost.layers, self.active, strict=True) if a < x.size)
        return (4 * (sum(self.active) + self.unpruned + self.channels) + masked / 8) / 1e6

    def zeros(self) -> float:
        """Count the weights pruned, of all weights of layers: a share."""
        size = sum(layer.size for layer in self.cost.layers)
        return (size - sum(self.active)) / (size + self.unpruned)

    def elementwise(self) -> int:
        """Count a bias addition and a ReLU for every output of a layer, which RigL's counter adds: FLOPs a sample."""
        return sum(2 * layer.shape[0] * layer.uses for layer in self.cost.layers)


@lru_cache
def planned(words: str) -> Planned:
    """Count the configuration that these overrides give; ``dense_first`` at the end keeps the first layer dense."""
    *overrides, last = words.split()
    dense_first = last == "dense_first"
    experiment = compose(overrides if dense_first else [*overrides, last])
    dataset = experiment.build("dataset")
    with torch.device("meta"):
        model = experiment.build("model").build(dataset.image, dataset.classes)
    blueprint = Blueprint(experiment)
    cost = blueprint.cost
    if dense_first:
        shapes = [layer.shape for layer in cost.layers[1:]]
        counts = experiment.build("allocation").counts(shapes, experiment.config["sparsity"])
        blueprint.counts = [cost.layers[0].size, *counts]
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return Planned(
        experiment,
        cost,
        blueprint.counts,
        plan_flops(blueprint),
        parameters=sum(p.numel() for p in model.parameters()),
        unpruned=sum(m.weight.numel() for m in layers) - sum(layer.size for layer in cost.layers),
        channels=sum(1 if getattr(m, "groups", 1) > 1 else m.weight.shape[0] for m in layers),
    )


@dataclass(frozen=True)
class Check:
    """One check value: how to count ours, and theirs as printed."""

    quantity: str
    ours: Callable[[], float]
    published: str
    source: str
    slack: Callable[[], float] = float
    """What rounding to whole connections may add to the difference."""

    @property
    def digits(self) -> int:
        """Decimals printed."""
        return len(self.published.partition(".")[2])

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.ours() - float(self.published)

    def holds(self) -> bool:
        """Return whether ours agrees to the last digit printed; of whole numbers, exactly."""
        unit = 0.1**self.digits if self.digits else 0.0
        return abs(self.difference) <= unit + self.slack() + 1e-9

    def row(self) -> dict[str, Any]:
        """Return a row of the table."""

        def shown(value: float) -> float | int:
            return round(value, self.digits + 1) + 0.0 if self.digits else round(value)  # + 0.0: no -0.0

        return {
            "quantity": self.quantity,
            "ours": shown(self.ours()),
            "published": float(self.published) if self.digits else int(self.published),
            "difference": shown(self.difference),
            "source": self.source,
        }


def density(words: str, layer: str, published: str) -> Check:
    """Check a layer's density."""

    def share() -> float:
        at = planned(words).layer(layer)
        return planned(words).active[at] / planned(words).cost.layers[at].size

    def one() -> float:
        return 1 / planned(words).cost.layers[planned(words).layer(layer)].size

    return Check(f"density of {layer}: {words}", share, published, COUNT, one)


def fraction(words: str, published: str) -> Check:
    """Check the FLOPs of inference relative to the dense network."""
    return Check(f"inference x dense: {words}", lambda: planned(words).flops["inference_x_dense"], published, COUNT)


def training(words: str, published: str) -> Check:
    """Check the FLOPs of a training step relative to dense training, by the formula of the method's paper."""

    def ratio() -> float:
        return planned(words).flops["train_x_dense_paper"]

    return Check(f"training x dense: {words}", ratio, published, COUNT)


def size(words: str, published: str, source: str = RIGL) -> Check:
    """Check the size of a model, in MB."""
    return Check(f"model MB: {words}", lambda: planned(words).megabytes(), published, source)


def pruned(words: str, published: str, source: str) -> Check:
    """Check the share of all weights of layers that is zero, those included that are never pruned."""
    return Check(f"zeros of all weights: {words}", lambda: planned(words).zeros(), published, source)


def network(words: str, source: str, parameters: str = "", macs: str = "") -> Iterator[Check]:
    """Check a network's parameters and multiply-adds of a forward pass: exact, or printed with a unit, ``36.5 M``.

    Multiply-adds include those of attention, as papers count them.
    """
    count: dict[str, Callable[[], float]] = {
        "parameters": lambda: planned(words).parameters,
        "MACs": lambda: (planned(words).cost.forward() + planned(words).cost.attention) / 2,
    }
    for name, printed in {"parameters": parameters, "MACs": macs}.items():
        number, _, unit = printed.partition(" ")
        if number:
            yield Check(f"{unit} {name}: {words}".strip(), _scaled(count[name], number, unit), number, source)


def _scaled(count: Callable[[], float], number: str, unit: str) -> Callable[[], float]:
    """Count in a unit; whole where it is printed so."""
    scale = {"": 1, "M": 1e6, "G": 1e9}[unit]
    return lambda: count() / scale if "." in number else round(count() / scale)


def counts(words: str, layers: int, prunable: int, macs: str = "", parameters: int | None = None) -> Iterator[Check]:
    """Check prunable layers and weights, multiply-adds of a forward pass (or millions of them), parameters."""
    yield Check(f"prunable layers: {words}", lambda: len(planned(words).active), str(layers), COUNT)
    yield Check(
        f"prunable weights: {words}", lambda: sum(x.size for x in planned(words).cost.layers), str(prunable), COUNT
    )
    if macs:
        name, unit = ("million MACs", 2e6) if "." in macs else ("MACs", 2)
        yield Check(f"{name}: {words}", lambda: planned(words).cost.forward() / unit, macs, COUNT)
    if parameters is not None:
        yield Check(f"parameters: {words}", lambda: planned(words).parameters, str(parameters), COUNT)


def saving(interval: int, published: str) -> Check:
    """Check how much less than RigL a training step of GSE costs, in percent."""
    words = f"{R50} allocation=erk sparsity=0.99 schedule.interval_steps={interval}"

    def percent() -> float:
        gse, rigl = (planned(f"{words} method={m}").flops["train_x_dense_paper"] for m in ("gse", "rigl"))
        return 100 * (1 - gse / rigl)

    return Check(f"GSE's training saves % of RigL's: {words}", percent, published, COUNT)


def dense_layers(words: str, published: int) -> Check:
    """Check how many layers the allocation leaves dense."""

    def full() -> int:
        return sum(a == x.size for x, a in zip(planned(words).cost.layers, planned(words).active, strict=True))

    return Check(f"dense layers: {words}", full, str(published), COUNT)
