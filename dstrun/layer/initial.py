"""Initial weights of a sparse layer, scaled by its actual fan-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrun.layer.interface import prunable
from dstrun.layer.topology import Topology
from dstrun.system.lazy import torch
from dstrun.system.stream import generator

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Initial:
    """What one layer starts with, on the CPU: topology, weights (A,) and bias (O,), used where the layer has one."""

    topology: Topology
    values: Tensor
    bias: Tensor


def initial(shape: tuple[int, ...], count: int, seed: int, index: int) -> Initial:
    """Draw the start of the ``index``-th prunable layer: the same on every backend and device.

    Args:
        shape: dense shape of its weight.
        count: A, active connections.
        seed: of the run; each layer has streams of its own.
        index: among the prunable layers.
    """
    topology = Topology.random(shape, count, generator(seed, "topology", index))
    values = initial_values(topology, generator(seed, "weights", index))
    return Initial(topology, values, initial_bias(topology, generator(seed, "bias", index)))


def scale_by_fan_in(model: nn.Module, seed: int) -> None:
    """Draw the weights and biases of every prunable layer of a dense network as those of a sparse one are drawn."""
    for index, (_, module) in enumerate(prunable(model)):
        start = initial(tuple(module.weight.shape), module.weight.numel(), seed, index)
        with torch.no_grad():
            module.weight.copy_(start.values.view_as(module.weight))
            if module.bias is not None:
                module.bias.copy_(start.bias)


def home(weight: Tensor) -> torch.device:
    """Return the device a layer's weights shall lie on: the weight's, or the CPU where it has none yet."""
    return torch.device("cpu") if weight.is_meta else weight.device


def bound(topology: Topology) -> Tensor:
    """Return sqrt(3 / fan-in) of every output unit, (O,): uniform weights within it have variance 1 / fan-in.

    A unit without active inputs counts as having one. Source: Heddes et al. 2024; Evci et al. 2022 on why the dense
    fan-in starves sparse layers.
    """
    return (3 / topology.fan_in().clamp(min=1)).sqrt()


def initial_values(topology: Topology, generator: torch.Generator) -> Tensor:
    """Draw w ~ U(-b, b), b the unit's ``bound``, for every active connection: (A,)."""
    unit = topology.positions // (topology.size // topology.shape[0])
    return (torch.rand(topology.count, generator=generator) * 2 - 1) * bound(topology)[unit]


def initial_bias(topology: Topology, generator: torch.Generator) -> Tensor:
    """Draw the biases within the same bounds as the weights: (O,)."""
    return (torch.rand(topology.shape[0], generator=generator) * 2 - 1) * bound(topology)
