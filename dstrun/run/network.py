"""The network a configuration chooses, counted without weights; the one that is trained; what each layer shall have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from dstrun.account.flops import NetworkCost, network_cost
from dstrun.account.survey import Survey, Unsized, survey
from dstrun.allocation.budget import budget, met, percent
from dstrun.allocation.uniform import Uniform
from dstrun.config.composition import Experiment
from dstrun.layer.attention import expose
from dstrun.layer.interface import prunable, skeleton, stored
from dstrun.storage.recompute import Recompute, checkpoint
from dstrun.system.trouble import ConfigError


def meta_model(experiment: Experiment, option: Any) -> nn.Module:
    """Build the network of an option on the meta device, without weights; layers that cannot be pruned are marked."""
    return _surveyed(experiment, option)[0]


def count_network(experiment: Experiment, option: Any = None) -> NetworkCost:
    """Count the network chosen, or that of another option, without weights."""
    model, seen = _surveyed(experiment, option or experiment.build("model"))
    return network_cost(model, experiment.build("dataset").image, seen)


def count_trained(experiment: Experiment, option: Any) -> NetworkCost:
    """Count the network of an option as it is trained, with what is computed again in the backward pass."""
    cost, kind = count_network(experiment, option), experiment.config["checkpointing"]
    if kind == "none":
        return cost
    again = set(checkpoint(meta_model(experiment, option), kind, Recompute()))
    return replace(cost, layers=[replace(layer, again=layer.name in again) for layer in cost.layers])


def builder(experiment: Experiment, option: Any, bare: bool = False) -> Callable[[], nn.Module]:
    """Return what builds the network of an option to be trained, with the same layers as its outline.

    Args:
        experiment: names the data set.
        option: of the group ``model``.
        bare: build no weights that will be drawn anew, unless a layer keeps those that it is built with.
    """
    outlined, seen = _surveyed(experiment, option)
    dataset = experiment.build("dataset")
    drawn = {id(stored(module)) for _, module in prunable(outlined)}
    bare = bare and all(id(stored(m)) in drawn for m in outlined.modules() if _has_skeleton(m))

    def build() -> nn.Module:
        with skeleton() if bare else nullcontext():
            model = option.build(dataset.image, dataset.classes)
        expose(model)
        seen.prepare(model)
        return model

    return build


def _has_skeleton(module: nn.Module) -> bool:
    """Return whether ``skeleton`` builds a module without weights; an exposed attention's are its layers'."""
    if isinstance(module, nn.MultiheadAttention):
        return not hasattr(module, "q_proj")
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


def _surveyed(experiment: Experiment, option: Any) -> tuple[nn.Module, Survey]:
    dataset = experiment.build("dataset")
    with torch.device("meta"):
        model = option.build(dataset.image, dataset.classes)
    expose(model)
    name = experiment.choices["model"]
    try:
        seen = survey(model, dataset.image)
    except Unsized as error:
        raise ConfigError(f"model={name} cannot be counted: {error}") from error
    if seen.gives != (1, dataset.classes):
        given = f"a {seen.gives}" if isinstance(seen.gives, str) else f"a tensor of shape {seen.gives}"
        raise ConfigError(f"model={name} gives {given} for one image: it must give logits, (1, {dataset.classes}) here")
    return model, seen


def shapes(experiment: Experiment) -> str:
    """Digest the names and shapes of all parameters of the network chosen: SHA-256, the same on every backend."""
    model = meta_model(experiment, experiment.build("model"))
    lines = [f"{name} {tuple(parameter.shape)}\n" for name, parameter in model.named_parameters()]
    return sha256("".join(lines).encode()).hexdigest()


def model_to_train(experiment: Experiment, cost: NetworkCost) -> Any:
    """Return the option of the network that is trained: the one chosen, unless the method trains another.

    Raises:
        ConfigError: the method finds none.
    """
    build = partial(meta_model, experiment)
    return experiment.build("method").network(experiment.build("model"), build, _budget(experiment, cost))


def allocate(experiment: Experiment, cost: NetworkCost) -> list[int]:
    """Return the connections every layer shall have: by the allocation, or the same share of each; all where dense.

    Raises:
        ConfigError: nothing can be pruned; or the method keeps whole structures, and these cannot keep to the budget.
    """
    method = experiment.build("method")
    if not cost.layers and method.prunes:
        raise ConfigError(f"model={experiment.choices['model']} has no layer that can be pruned: set method=dense")
    model = meta_model(experiment, model_to_train(experiment, cost))
    counts = method.counts(model, _budget(experiment, cost))
    if counts is not None:
        return counts
    allocation = experiment.build("allocation") or Uniform(dense_first=False)
    return allocation.counts([layer.shape for layer in cost.layers], experiment.config["sparsity"])


def _budget(experiment: Experiment, cost: NetworkCost) -> int:
    return budget(sum(layer.size for layer in cost.layers), experiment.config["sparsity"])


def planned_backends(experiment: Experiment, layers: int) -> list[str]:
    """Return the backend of every layer before a run starts: ``auto``, which measures then, counts as ``sparse``."""
    return ["masked" if experiment.config["backend"] == "masked" else "sparse"] * layers


def unmet(experiment: Experiment, cost: NetworkCost, counts: list[int]) -> str:
    """Return why the layers' counts are not the sparsity asked for, in a sentence; empty where they are.

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
    """Return the ``parameters`` group: ``dense`` and ``active`` count every parameter, ``prunable`` the weights.

    Args:
        experiment: says which sparsity was asked for, if any.
        cost: of the network chosen.
        built: of the one trained, which is the same unless the method builds another.
        active: connections of each layer.
    """
    prunable = sum(layer.size for layer in cost.layers)
    return {
        "dense": cost.parameters,
        "active": built.others + sum(active),
        "prunable": prunable,
        "sparsity": 1 - sum(active) / prunable if prunable else 0.0,
        "asked": experiment.config["sparsity"] if experiment.build("method").budget else None,
    }


def unpruned_record(cost: NetworkCost) -> list[dict[str, Any]]:
    """Return the list ``not_prunable`` of records and plans."""
    return [asdict(part) for part in cost.unpruned]
