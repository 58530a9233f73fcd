"""Forms in which flat tensors are kept: bits for flags; blocks of 8- or 4-bit numbers rounded at random.

Compiled on the CPU; elsewhere in PyTorch, in chunks. Of tensors that hold no numbers (``FakeTensor``) only shapes and
types follow, for predicting memory.

Shape letters: L numbers, K blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from dstrun.backend.sparse.kernel.call import array, threads
from dstrun.storage import kernel
from dstrun.storage.kernel import BLOCK

CHUNK = 1 << 20
"""Numbers rounded at once by PyTorch."""


def _is_hollow(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor) or tensor.is_meta


def pack_bits(flags: Tensor) -> Tensor:
    """Return eight flags a byte: (ceil(L / 8),) uint8 from (L,) bool."""
    bits = torch.empty(-(-flags.numel() // 8), dtype=torch.uint8, device=flags.device)
    if _is_hollow(flags):
        return bits
    if flags.device.type == "cpu":
        threads()
        kernel.pack_bits(array(flags.view(torch.uint8)), array(bits))
        return bits
    bits.zero_()
    for bit in range(8):
        part = flags[bit::8].view(torch.uint8)
        bits[: part.numel()] |= part << bit
    return bits


def unpack_bits(bits: Tensor, length: int) -> Tensor:
    """Return the flags that ``pack_bits`` was given: (L,) bool."""
    flags = torch.empty(length, dtype=torch.bool, device=bits.device)
    if _is_hollow(bits):
        return flags
    if bits.device.type == "cpu":
        threads()
        kernel.unpack_bits(array(bits), array(flags.view(torch.uint8)))
        return flags
    for bit in range(8):
        part = flags[bit::8]
        part.copy_((bits[: part.numel()] >> bit) & 1)
    return flags


def sift(x: Tensor, bits: Tensor) -> Tensor:
    """Return numbers where ``bits`` has a flag, else 0, in new memory: (L,) from (L,)."""
    if not _is_hollow(x) and x.device.type == "cpu":
        y = torch.empty_like(x)
        integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        threads()
        kernel.sift(array(x.view(integer)), array(bits), array(y.view(integer)))
        return y
    return torch.empty_like(x) if _is_hollow(x) else x.masked_fill(unpack_bits(bits, x.numel()).logical_not_(), 0)


class Blocks(NamedTuple):
    """Numbers in blocks of ``BLOCK``, each of ``levels`` equal steps from its least number to its greatest.

    Attributes:
        codes: uint8, steps above the least number: (L,), or (ceil(L / 2),) for 15 levels.
        low: (K,) float32, the least number of each block; not a number where the block has one that is not finite.
        step: (K,) float32.
        levels: 255 or 15.
        length: L.
        dtype: of the numbers.
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    levels: int
    length: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Count the bytes of all three tensors."""
        return self.codes.nbytes + self.low.nbytes + self.step.nbytes


def encode(x: Tensor, levels: int, seed: int) -> Blocks:
    """Round numbers to steps of their blocks, up or down at random, so that every one is right in the mean.

    That is the stochastic rounding of ActNN (Chen et al. 2021) with blocks of 256 numbers. A number's variance is at
    most step^2 / 4. A block with a number that is not finite comes back as NaN, so that it does not go unnoticed.

    Args:
        x: (L,), contiguous.
        levels: 255 or 15.
        seed: of the noise, in [0, 2^63).
    """
    length = x.numel()
    codes = torch.empty(length if levels == 255 else -(-length // 2), dtype=torch.uint8, device=x.device)
    low, high = torch.empty((2, -(-length // BLOCK)), dtype=torch.float32, device=x.device)
    whole = length // BLOCK
    for part, to in (
        (x[: whole * BLOCK].view(whole, BLOCK), slice(whole)),
        (x[None, whole * BLOCK :], slice(whole, None)),
    ):
        if part.numel():
            low[to], high[to] = part.amin(1), part.amax(1)  # NaN if any is
    step = high.sub_(low).div_(levels)
    if _is_hollow(x):
        pass
    elif x.device.type == "cpu" and x.dtype == torch.float32:
        threads()
        keys = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)
        kernel.encode(array(x), array(low), array(step), np.int32(levels), *keys, array(codes))
    else:
        _encode_in_chunks(x, low, step, levels, seed, codes)
    return Blocks(codes, low, step, levels, length, x.dtype)


def decode(blocks: Blocks) -> Tensor:
    """Return the numbers that blocks stand for: (L,), of their first type."""
    codes, low, step, levels, length, dtype = blocks
    x = torch.empty(length, dtype=dtype, device=codes.device)
    if _is_hollow(codes):
        return x
    if codes.device.type == "cpu" and dtype == torch.float32:
        threads()
        kernel.decode(array(codes), array(low), array(step), np.int32(levels), array(x))
        return x
    for start in range(0, length, CHUNK):
        end = min(length, start + CHUNK)
        part = codes[start:end] if levels == 255 else _halves(codes[start // 2 : -(-end // 2)])[: end - start]
        blocks_here = slice(start // BLOCK, -(-end // BLOCK))
        wide = _spread(step[blocks_here], end - start).mul_(part).add_(_spread(low[blocks_here], end - start))
        x[start:end] = wide
    return x


def _encode_in_chunks(x: Tensor, low: Tensor, step: Tensor, levels: int, seed: int, codes: Tensor) -> None:
    generator = torch.Generator(x.device).manual_seed(seed)
    for start in range(0, x.numel(), CHUNK):
        end = min(x.numel(), start + CHUNK)
        blocks_here = slice(start // BLOCK, -(-end // BLOCK))
        steps = x[start:end].float() - _spread(low[blocks_here], end - start)
        steps.div_(_spread(step[blocks_here], end - start))
        steps.nan_to_num_(0)  # a block of equal numbers has no step
        steps.add_(torch.rand(end - start, generator=generator, device=x.device)).clamp_(0, levels)
        part = steps.to(torch.uint8)
        if levels == 255:
            codes[start:end] = part
        else:
            codes[start // 2 : -(-end // 2)] = part[::2]
            codes[start // 2 : end // 2] |= part[1::2] << 4


def _spread(values: Tensor, length: int) -> Tensor:
    """Return each block's value for each of its numbers."""
    return values.repeat_interleave(BLOCK)[:length]


def _halves(codes: Tensor) -> Tensor:
    """Return the two 4-bit codes of every byte."""
    return torch.stack((codes & 15, codes >> 4), 1).view(-1)
