"""The network a configuration chooses, counted without weights; the one that is trained; what each layer shall have."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from dstrun.account.flops import NetworkCost, network_cost
from dstrun.allocation.uniform import Uniform
from dstrun.budget import budget, met, percent
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
    return budget(sum(layer.size for layer in cost.layers), experiment.config["sparsity"])


def unmet(experiment: Experiment, cost: NetworkCost, counts: list[int]) -> str:
    """Say in a sentence that the layers' counts are not the sparsity asked for, and why; empty where they are.

    Args:
        experiment: checked.
        cost: of the network chosen.
        counts: what every layer shall have at the end (``allocate``).
    """
    method, asked = experiment.build("method"), experiment.config["sparsity"]
    total, active = sum(layer.size for layer in cost.layers), sum(counts)
    if not method.budget or met(active, total, asked):
        return ""
    allocation, name = experiment.build("allocation"), experiment.choices["allocation"]
    why = ""
    if not method.exact:
        why = f", as method={experiment.choices['method']} keeps whole channels"
    elif getattr(allocation, "dense_first", False):
        why = f", as allocation={name} keeps the first layer dense on top"
    verb = "are" if method.start == "sparse" else "will be"
    return f"sparsity={asked:g} was asked for; {percent(1 - active / total)} % of prunable weights {verb} zero{why}"


def parameters_record(
    experiment: Experiment, cost: NetworkCost, built: NetworkCost, active: list[int]
) -> dict[str, Any]:
    """Give the ``parameters`` group: ``dense`` and ``active`` count every parameter, ``prunable`` the weights.

    Args:
        experiment: says which sparsity was asked for, if any.
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
        "asked": experiment.config["sparsity"] if experiment.build("method").budget else None,
    }
