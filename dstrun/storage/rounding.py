"""Stochastic rounding: up or down with such chances that the mean is the number itself.

Nearest rounding loses every change of less than half a unit in the last place, which are most steps of a 16-bit weight
(Gupta et al. 2015); stochastic rounding keeps them on average. Draws are a hash of a seed and of the place of the
number, computed where the numbers are: no generator, no transfer, and the same bits on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
"""By the names that the settings ``weights`` and ``state`` have for them."""

CHANCES = 1 << 16
"""A draw is one of so many."""

_DROPPED = {torch.bfloat16: 16, torch.float16: 13}
"""How many bits of a float32 mantissa each type drops."""

_SMALLEST = 2.0**-14
"""Below it, float16 numbers are evenly spaced."""


class Draws:
    """Independent draws for the numbers at consecutive places, a tensor of them whenever asked.

    Args:
        seed: in [0, 2^63).
        start: the first place.
        count: of numbers.
        device: where they are.
    """

    def __init__(self, seed: int, start: int, count: int, device: torch.device) -> None:
        self.seed, self.start, self.count, self.device = seed, start, count, device
        self._left: Tensor | None = None

    def next(self) -> Tensor:
        """Draw 16 bits for every number: (count,) int32 in [0, 65536)."""
        if self._left is not None:
            drawn, self._left = self._left, None
            return drawn
        places = torch.arange(self.start, self.start + self.count, dtype=torch.int32, device=self.device)
        bits = mixed(places, self.seed)
        self.seed = (self.seed + 0x9E3779B97F4A7C15) % (1 << 63)
        self._left = (bits >> 16).bitwise_and_(CHANCES - 1)
        return bits.bitwise_and_(CHANCES - 1)


def mixed(places: Tensor, seed: int) -> Tensor:
    """Hash 32-bit integers by multiplications and shifts, which change half of all bits for each bit that differs.

    Args:
        places: (n,) int32; overwritten.
        seed: its low half is added to the places, its upper half, made odd, multiplies them.
    """
    places.mul_(_signed(seed >> 32 | 1)).add_(_signed(seed))
    shifted = torch.empty_like(places)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        torch.bitwise_right_shift(places, shift, out=shifted)
        places.bitwise_xor_(shifted.bitwise_and_((1 << (32 - shift)) - 1)).mul_(_signed(factor))
    return places


def stochastic(values: Tensor, dtype: torch.dtype, draws: Tensor) -> Tensor:
    """Round float32 numbers to 16 bits; what is representable stays, and so do infinity and NaN.

    Args:
        values: float32.
        dtype: ``bfloat16`` or ``float16``.
        draws: of the same shape, int32 in [0, 65536).
    """
    dropped = _DROPPED[dtype]
    lift = None
    if dtype == torch.float16:
        lift = torch.where(values.abs() < _SMALLEST, _SMALLEST, 0.0).copysign_(values)
        values = values + lift  # where the spacing is that of the numbers below
    bits = values.view(torch.int32) + (draws >> (16 - dropped))
    rounded = bits.bitwise_and_(-1 << dropped).view(torch.float32)
    if lift is not None:
        rounded = rounded - lift
    return torch.where(values.isfinite(), rounded, values).to(dtype)


def _signed(number: int) -> int:
    """Return the 32-bit integer with the low bits of a number."""
    return ((number & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
