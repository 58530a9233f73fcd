"""Numbers in 8 bits: logarithms, in blocks that share an exponent.

After the 8-bit optimizer state of Dettmers et al. 2022, whose codes are dense near zero, too. Here the levels of a
block are its largest one times powers of one ratio, and the largest one is such a power itself: all levels of all
blocks lie on one grid. So numbers that move to other blocks, as connections do when a layer is rewired, keep their
values exactly, but for those that are less than ``RANGE`` of the largest of their new block.

Shape letters: n numbers, K blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dstrun.storage.rounding import CHANCES

BLOCK = 128
"""Numbers that share an exponent, which takes 2 bytes."""

RANGE = 2.0**-15.75
"""The smallest level of a block as a share of its largest."""

_EMPTY = torch.iinfo(torch.int16).min
"""The exponent of 0."""

_BOUND = 1 << 12
"""More than the exponent of any float32, either way."""


class Grid(NamedTuple):
    """Levels of a block: ``levels`` of each sign, ``steps`` of them an octave."""

    levels: int
    steps: int
    dtype: torch.dtype

    @property
    def ratio(self) -> float:
        """A level as a multiple of the one below."""
        return 2 ** (1 / self.steps)


SIGNED = Grid(127, 8, torch.int8)
POSITIVE = Grid(255, 16, torch.uint8)


def packed(values: Tensor, grid: Grid, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pack numbers: codes (n,), 0 for 0 alone, and block exponents (K,) int16.

    Below its smallest level a block of signed numbers has 0, and of positive ones that level: a second moment that
    became 0 would make a step as large as can be.

    Args:
        values: (n,) float32; none negative where the grid has one sign.
        grid: of levels.
        draws: (n,) int32 in [0, 65536), for levels above or below such that the mean is right; ``None``: the nearest.
    """
    count = values.numel()
    chance = 0.5 if draws is None else (draws + 0.5) / CHANCES
    size = values.abs()
    below = size.log2().mul_(grid.steps).floor_().clamp_(-_BOUND, _BOUND).int()
    share = (size / _level(below, grid) - 1) / (grid.ratio - 1)
    place = (below + (share > chance)).masked_fill_(size == 0, _EMPTY)
    blocks = functional.pad(place, (0, -count % BLOCK), value=_EMPTY).view(-1, BLOCK)
    top = blocks.amax(1)
    code = (blocks - top[:, None] + grid.levels).view(-1)[:count]
    if grid is SIGNED:
        least = _level(top - grid.levels + 1, grid).repeat_interleave(BLOCK)[:count]
        code = torch.where(code < 1, (size > least * chance).int(), code) * values.sign()
    else:
        code = code.clamp_(min=1).masked_fill_(size == 0, 0)
    return code.to(grid.dtype), top.to(torch.int16)


def unpacked(codes: Tensor, exponents: Tensor, grid: Grid) -> Tensor:
    """Return the numbers, (n,) float32, of codes (n,) and block exponents (K,)."""
    place = codes.int()
    top = exponents.int().repeat_interleave(BLOCK)[: codes.numel()]
    return _level(place.abs() + (top - grid.levels), grid) * place.sign_()


def _level(place: Tensor, grid: Grid) -> Tensor:
    """Return a grid's power of its ratio, float32: the same bits wherever it stands, which ``exp2`` does not promise.

    Args:
        place: int32.
        grid: of levels.
    """
    octave = [2 ** (step / grid.steps) for step in range(grid.steps)]
    within = torch.tensor(octave, dtype=torch.float32, device=place.device)[place & (grid.steps - 1)]
    power = (place >> grid.steps.bit_length() - 1).add_(127).clamp_(0, 254).bitwise_left_shift_(23)
    return within * power.view(torch.float32)
