"""The weights of a network once training is over, apart from methods and backends, and networks made of them.

Shape letters: A active connections of a layer, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.backend.auto import place
from dstrun.layer.backend import backend
from dstrun.layer.initial import Initial
from dstrun.layer.interface import prunable, sharing
from dstrun.layer.topology import Topology
from dstrun.run.blueprint import Blueprint
from dstrun.run.restore import Restored
from dstrun.system.trouble import ConfigError

PLAIN = "masked"
"""The backend whose layers are PyTorch's own, which any network can have."""


@dataclass(frozen=True)
class Weights:
    """All numbers of a network whose attention is exposed (``layer.attention``).

    Attributes:
        layers: of each prunable layer by name, which connections are active and their weights, (A,) float32.
        rest: every other entry of its state: biases, normalization and its statistics.
    """

    layers: dict[str, tuple[Topology, Tensor]]
    rest: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Count the bytes of all numbers, inactive weights included."""
        every = [(tensor.numel(), tensor.itemsize) for tensor in self.rest.values()]
        return sum(n * size for n, size in (*every, *((t.size, v.itemsize) for t, v in self.layers.values())))

    def dense(self, name: str) -> Tensor:
        """Return the dense weight of a layer, (O, ...)."""
        topology, values = self.layers[name]
        flat = values.new_zeros(topology.size)
        flat[topology.positions.to(values.device)] = values
        return flat.view(topology.shape)


@torch.no_grad()
def taken(restored: Restored) -> Weights:
    """Return the weights that a run's network computes with, whatever they are computed from; the training is over."""
    training = restored.training
    training.procedure.release()
    layers = {layer.name: layer for layer in training.layers}
    held: dict[str, tuple[Topology, Tensor]] = {}
    for name, module in prunable(restored.blueprint.trained.model):
        layer = layers.get(name)
        if layer is not None and not backend(layer.backend).dense:
            held[name] = layer.topology, layer.values().cpu()
            continue
        weight: Any = training.model.get_submodule(name).weight
        topology = Topology(tuple(module.weight.shape), torch.arange(module.weight.numel()))
        topology = topology if layer is None else layer.topology
        held[name] = topology, weight.detach().cpu().float().flatten()[topology.positions]
    state = training.model.state_dict()
    rest = owned(restored.blueprint, set(held))
    return Weights(held, {name: state[name].cpu() for name, owner in rest.items() if owner is None})


def owned(blueprint: Blueprint, layers: set[str]) -> dict[str, str | None]:
    """List the entries of a bare network's state in their order, each with the layer whose weight it is, if it is one.

    A weight that several modules share is that of the first.
    """
    model = blueprint.trained.model
    first = {id(module.weight): name for name, module in prunable(model) if name in layers}
    return {key: first.get(id(value)) for key, value in model.state_dict(keep_vars=True).items()}


def state(blueprint: Blueprint, weights: Weights) -> dict[str, Tensor]:
    """Return the dense state of the network, its attention exposed."""
    entries = owned(blueprint, set(weights.layers))
    return {key: weights.rest[key] if owner is None else weights.dense(owner) for key, owner in entries.items()}


def starts(named: Mapping[str, tuple[Topology, Tensor]], model: nn.Module) -> list[Initial]:
    """Return the start of every prunable layer of a network; biases are loaded later.

    Raises:
        ConfigError: they are of another network.
    """
    found = []
    for name, module in prunable(model):
        topology, values = named.get(name, (None, None))
        if topology is None or values is None or topology.shape != tuple(module.weight.shape):
            raise ConfigError(f"{name} is {'another' if topology else 'no'} layer in these weights")
        found.append(Initial(topology, values, values.new_zeros(topology.shape[0])))
    return found


def load_rest(model: nn.Module, weights: Weights) -> None:
    """Load what is no layer's weight.

    Raises:
        ConfigError: it is of another network.
    """
    try:
        missing, unexpected = model.load_state_dict(weights.rest, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"these weights are of another network: {' '.join(str(error).split())}") from error
    layers = [(name, model.get_submodule(name)) for name in weights.layers]
    entries, placed = model.state_dict(keep_vars=True), {id(module.weight) for _, module in layers}
    placed |= {id(entries[key]) for name, _ in layers for key in entries if key.startswith(f"{name}.pattern.")}
    if odd := [*unexpected, *(key for key in missing if id(entries[key]) not in placed)]:
        raise ConfigError(f"these weights are of another network: {odd[0]}")


def network(blueprint: Blueprint, weights: Weights, backends: Mapping[str, str], device: torch.device) -> nn.Module:
    """Build the network of an experiment with these weights, ready for inference.

    Args:
        blueprint: of the experiment.
        weights: of its network.
        backends: of its layers by name; a layer that cannot be stored so on this device is a plain one.
        device: where it goes.

    Raises:
        ConfigError: the weights are of another network.
    """
    model = blueprint.build(bare=True)
    chosen = [
        backends[name] if _can_be(backends.get(name, PLAIN), model, name, device) else PLAIN
        for name, _ in prunable(model)
    ]
    place(model, starts(weights.layers, model), chosen, device)
    load_rest(model, weights)
    return model.to(device).eval()


def _can_be(stored: str, model: nn.Module, name: str, device: torch.device) -> bool:
    """Return whether a layer can be stored by a backend on a device; whether by the plain one is not asked."""
    module = model.get_submodule(name)
    plain = type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d) and not sharing(model, module)  # type: ignore[arg-type]
    return stored != PLAIN and plain and not backend(stored).lacks(name, module, device)  # type: ignore[arg-type]
