"""Which connections of a layer are active: sorted flat positions, an exact count.

A position is an index into the flattened weight of shape (O, I): ``position = o * I + i``, where I is in / groups
times the kernel area. Topologies are kept on the CPU whatever the device: what changes them is small, and its size is
known there. Nothing here allocates a tensor of the dense size.

Shape letters: N connections of the dense layer, A active (the field's nnz), K drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrun.system.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

NONSENSE = (
    "a pruned connection was not active, or was named twice",
    "a grown connection was already active, or was named twice",
)
"""What is said of positions that cannot be pruned and grown."""


@dataclass(frozen=True)
class Topology:
    """The active connections of one layer.

    Attributes:
        shape: dense shape of the weight, (out, in) or (out, in / groups, kh, kw).
        positions: (A,) int64, sorted, unique, each in [0, N); on the CPU.
    """

    shape: tuple[int, ...]
    positions: Tensor

    @classmethod
    def random(cls, shape: tuple[int, ...], count: int, generator: torch.Generator) -> Topology:
        """Draw ``count`` connections uniformly among all, exactly."""
        size = math.prod(shape)
        if 2 * count <= size:
            return cls(shape, draw_sorted(size, count, generator))
        excluded = draw_sorted(size, size - count, generator)
        return cls(shape, inactive(excluded, torch.arange(count)))

    @property
    def size(self) -> int:
        """N, connections of the dense layer."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """A, active connections."""
        return self.positions.numel()

    @property
    def density(self) -> float:
        """Active share, A / N."""
        return self.count / self.size

    def checksum(self) -> int:
        """Return a number that two topologies of one shape share by accident only."""
        mixed = self.positions * 0x5851F42D4C957F2D + 0x14057B7EF767814F  # wraps around, as a sum of int64 does
        return int((mixed ^ (mixed >> 29)).sum())

    def fan_in(self) -> Tensor:
        """Count the active inputs of every output: (O,) int64."""
        return torch.bincount(self.positions // (self.size // self.shape[0]), minlength=self.shape[0])

    def rewired(self, prune: Tensor, grow: Tensor) -> Topology:
        """Remove the positions ``prune`` and add ``grow``.

        Args:
            prune: active positions.
            grow: inactive positions; as many as pruned unless layers trade connections (``scope=global``).

        Raises:
            ValueError: a pruned position is not active, a grown one already is, or one is named twice.
        """
        from dstrun.layer import lists

        positions = torch.empty(max(0, self.count - prune.numel() + grow.numel()), dtype=torch.int64)
        given = self.positions, ordered(prune), ordered(grow), positions
        wrong = lists.exchange(*(tensor.numpy() for tensor in given))
        if wrong:
            raise ValueError(NONSENSE[wrong - 1])
        return Topology(self.shape, positions)


def ordered(positions: Tensor) -> Tensor:
    """Sort positions; where they are, the same tensor."""
    from dstrun.layer.lists import rises

    return positions if rises(positions.numpy()) else positions.sort().values


def contains(sorted_positions: Tensor, query: Tensor) -> Tensor:
    """Return for each query whether it is among the sorted positions: bool, the query's shape."""
    if sorted_positions.numel() == 0:
        return torch.zeros_like(query, dtype=torch.bool)
    at = torch.searchsorted(sorted_positions, query).clamp_(max=sorted_positions.numel() - 1)
    return sorted_positions[at] == query


def without(sorted_positions: Tensor, dropped: Tensor) -> Tensor:
    """Leave out those of the sorted positions that are among ``dropped``, which may be in any order."""
    from dstrun.layer import lists

    left = torch.empty_like(sorted_positions)
    return left[: lists.without(sorted_positions.numpy(), ordered(dropped).numpy(), left.numpy())]


def others(sorted_positions: Tensor, named: Tensor) -> Tensor:
    """Return where the sorted positions (A,) are that are not named (M,), which are all among them: (A - M,)."""
    from dstrun.layer import lists

    places = torch.empty(sorted_positions.numel() - named.numel(), dtype=torch.int64)
    lists.others(sorted_positions.numpy(), ordered(named).numpy(), places.numpy())
    return places


def merged(one: Tensor, other: Tensor) -> Tensor:
    """Merge two sorted tensors of positions."""
    from dstrun.layer import lists

    if one.numel() == 0 or other.numel() == 0:
        return other if one.numel() == 0 else one
    both = one.new_empty(one.numel() + other.numel())
    lists.merge(one.numpy(), other.numpy(), both.numpy())
    return both


def inactive(blocked: Tensor, ranks: Tensor) -> Tensor:
    """Map ranks to positions: rank r names the r-th position that is not blocked.

    Args:
        blocked: (A,) sorted positions.
        ranks: (K,) int64 in [0, N - A).

    Returns:
        (K,) int64 positions outside ``blocked``.
    """
    gaps = blocked - torch.arange(blocked.numel(), device=blocked.device)
    return ranks + torch.searchsorted(gaps, ranks, right=True)


def draw_distinct(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` of ``size`` integers uniformly without replacement, in random order: (count,) int64.

    Time and memory follow ``count``, not ``size``, unless more than half of all are wanted.

    Raises:
        ValueError: more are wanted than there are.
    """
    if not 0 <= count <= size:
        raise ValueError(f"cannot draw {count} of {size}")
    if 2 * count > size:
        return torch.randperm(size, generator=generator)[:count]
    drawn = torch.empty(0, dtype=torch.int64)
    while drawn.numel() < count:
        missing = count - drawn.numel()
        fresh = torch.randint(size, (missing + missing // 8 + 8,), generator=generator)
        drawn = first_of_each(torch.cat([drawn, fresh]))
    return drawn[:count]


def draw_sorted(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw as ``draw_distinct`` does at most half of all, but return them sorted: faster, and in a third of the memory.

    Of what is drawn, the next as many as are missing are taken at a time: these are never too many.
    """
    known = late = np.empty(0, np.int64)
    while (missing := count - known.size - late.size) > 0:
        fresh = torch.randint(size, (missing + missing // 8 + 8,), generator=generator).numpy()
        while (missing := count - known.size - late.size) > 0 and fresh.size:
            part, fresh = fresh[:missing], fresh[missing:]
            part.sort()
            if known.size == 0:
                known = part[_changes(part)]
                continue
            new = ~contains(torch.from_numpy(known), torch.from_numpy(part)).numpy()
            late = np.concatenate([late, part[new]])
            late.sort(kind="stable")  # merges the two
            late = late[_changes(late)]
    return merged(*map(torch.from_numpy, (known, late)))


def _changes(values: np.ndarray) -> np.ndarray:
    """Return where sorted values differ from the one before."""
    first = np.ones(values.size, bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def first_of_each(codes: Tensor) -> Tensor:
    """Drop repeated codes, keeping the order in which each came first (``torch.unique`` would sort)."""
    ordered, origin = codes.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return codes[origin[first].sort().values]


def number_type(count: int) -> torch.dtype:
    """Return the type that numbers ``count`` connections: 32 bits, or 64 from 2^31 on."""
    return torch.int32 if count < 1 << 31 else torch.int64
