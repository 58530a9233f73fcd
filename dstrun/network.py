"""The network a configuration chooses, counted without weights; the one that is trained; what each layer shall have."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from dstrun.account.flops import NetworkCost, network_cost
from dstrun.allocation.uniform import Uniform
from dstrun.config import Experiment


def outline(experiment: Experiment, option: Any) -> nn.Module:
    """Build the network of an option on the meta device, without weights."""
    dataset = experiment.build("dataset")
    with torch.device("meta"):
        return option.build(dataset.image, dataset.classes)


def count_network(experiment: Experiment, option: Any = None) -> NetworkCost:
    """Count the layers of the network chosen, or of another option, without weights."""
    option = option or experiment.build("model")
    return network_cost(outline(experiment, option), experiment.build("dataset").image)


def shapes(experiment: Experiment) -> str:
    """Digest the names and shapes of all parameters of the network chosen: SHA-256, the same on every backend."""
    model = outline(experiment, experiment.build("model"))
    said = [f"{name} {tuple(parameter.shape)}\n" for name, parameter in model.named_parameters()]
    return sha256("".join(said).encode()).hexdigest()


def trained(experiment: Experiment, cost: NetworkCost) -> Any:
    """Give the option of the network that is trained: the one chosen, unless the method trains another.

    Raises:
        ConfigError: the method finds none.
    """
    build = partial(outline, experiment)
    return experiment.build("method").network(experiment.build("model"), build, _budget(experiment, cost))


def allocate(experiment: Experiment, cost: NetworkCost) -> list[int]:
    """Give the connections every layer shall have: by the allocation, or the same share of each; all where dense.

    Raises:
        ConfigError: the method keeps whole structures, and these cannot keep to the budget.
    """
    model = outline(experiment, trained(experiment, cost))
    counts = experiment.build("method").counts(model, _budget(experiment, cost))
    if counts is not None:
        return counts
    allocation = experiment.build("allocation") or Uniform(dense_first=False)
    return allocation.counts([layer.shape for layer in cost.layers], experiment.config["sparsity"])


def _budget(experiment: Experiment, cost: NetworkCost) -> int:
    return round((1 - experiment.config["sparsity"]) * sum(layer.size for layer in cost.layers))


def parameters_record(cost: NetworkCost, built: NetworkCost, active: list[int]) -> dict[str, Any]:
    """Give the ``parameters`` group: ``dense`` and ``active`` count every parameter, ``prunable`` the weights.

    Args:
        cost: of the network chosen.
        built: of the one trained, which is the same unless the method builds another.
        active: connections of each layer.
    """
    prunable = sum(layer.size for layer in cost.layers)
    return {
        "dense": cost.others + prunable,
        "active": built.others + sum(active),
        "prunable": prunable,
        "sparsity": 1 - sum(active) / prunable,
    }
