"""Which connections have ever been active, for a sample of them: the full set would outgrow a sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrun.layer.topology import Topology, number_type

SMALLEST = 512
"""A layer of no more connections is followed in full."""


class Explored:
    """Follows every m-th connection of a layer, m a prime, so that no more than about A / 4 are followed.

    Args:
        topology: the layer's first; A its active connections.
        per_output: I, which m must not divide: else the sample would see only some inputs.
    """

    def __init__(self, topology: Topology, per_output: int) -> None:
        self.size = topology.size
        self.every = _prime(-(-self.size // max(topology.count // 4, SMALLEST)), per_output)
        self.positions = self._followed(topology.positions)

    def add(self, positions: Tensor) -> None:
        """Note positions that are active now; sorted, on the CPU."""
        from dstrun.layer.lists import union

        known, new = self.positions.cpu(), self._followed(positions)
        both = known.new_empty(known.numel() + new.numel())
        count = union(known.numpy(), new.numpy(), both.numpy())
        self.positions = both if count == both.numel() else both[:count].clone()

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs: the sample, and m, which depends on A at the start."""
        return {"ever": self.positions, "every": torch.tensor(self.every)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the sample of a checkpoint."""
        self.positions, self.every = state["ever"].to(self.positions), int(state["every"])

    def share(self) -> float:
        """Estimate the share of all connections that have been active at any time: exact where m is 1."""
        return self.positions.numel() / -(-self.size // self.every)

    def _followed(self, positions: Tensor) -> Tensor:
        """Return those of some positions that are followed, in their order."""
        from dstrun.layer.lists import multiples

        found = torch.empty(positions.shape, dtype=number_type(self.size))
        return found[: multiples(positions.numpy(), self.every, found.numpy())].clone()


def _prime(least: int, per_output: int) -> int:
    """Return 1 for at most 1, else the first prime from ``least`` on that does not divide ``per_output``."""
    if least <= 1:
        return 1
    found = least
    while per_output % found == 0 or any(found % d == 0 for d in range(2, int(found**0.5) + 1)):
        found += 1
    return found
