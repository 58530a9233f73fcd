"""Initial weights of a sparse layer, scaled by the fan-in that is really there."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrun.topology import Topology


def bound(topology: Topology) -> Tensor:
    """Give sqrt(3 / fan-in) of every output unit, (O,): uniform weights within it have variance 1 / fan-in.

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
