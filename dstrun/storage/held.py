"""What replaces a tensor between forward and backward pass: its numbers in some format, or how to recompute them.

A ``Source`` gives the numbers of one stretch of memory; a ``View`` shows them in a tensor's shape and strides, so that
whatever computes with it finds the layout that it had. Views of one stretch share its source.

Shape letters: L numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dstrun.storage.form import Blocks, decode


class Source(Protocol):
    """The numbers of one stretch of memory."""

    nbytes: int

    def flat(self) -> Tensor:
        """Return them: (L,), not to be written to."""
        ...


@dataclass(frozen=True)
class View:
    """A tensor that need not be there: its source, shape and strides."""

    source: Source
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return the tensor, or what its form has left of it."""
        flat = self.source.flat()
        return flat.as_strided(self.size, self.stride, flat.storage_offset())


class Whole:
    """Numbers as they are.

    Args:
        tensor: where they lie.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.nbytes = tensor.nbytes
        self._tensor, self._version = tensor, tensor._version

    def flat(self) -> Tensor:
        """Return the numbers.

        Raises:
            RuntimeError: they were overwritten, which PyTorch, too, refuses of what it keeps.
        """
        if self._tensor._version != self._version:
            raise RuntimeError("a tensor that the backward pass needs has been modified by an inplace operation")
        return self._tensor


class Rounded:
    """Numbers in 16 bits.

    Args:
        flat: (L,) of more bits.
        dtype: bfloat16, or float16, in which numbers beyond 65,504 become infinite and ones below 3e-8 zero.
    """

    def __init__(self, flat: Tensor, dtype: torch.dtype) -> None:
        self.numbers, self._dtype = flat.to(dtype), flat.dtype
        self.nbytes = self.numbers.nbytes

    def flat(self) -> Tensor:
        """Return the numbers in their first type."""
        return self.numbers.to(self._dtype)


class Coded:
    """Numbers in blocks of 8 or 4 bits each."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.nbytes = blocks, blocks.nbytes

    def flat(self) -> Tensor:
        """Return the numbers that the blocks stand for."""
        return decode(self.blocks)


class Again:
    """The result of an operation, computed again whenever it is asked for.

    Args:
        parent: what it is computed from.
        function: returns a new tensor.
        like: the result as the forward pass had it, whose layout comes back.
    """

    def __init__(self, parent: View, function: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.parent, self.function, self.nbytes = parent, function, 0
        self.size, self.stride = tuple(like.shape), like.stride()

    def tensor(self) -> Tensor:
        """Return the result, in memory of its own."""
        made = self.function(self.parent.tensor())
        if made.stride() != self.stride:
            made = made.new_empty_strided(self.size, self.stride).copy_(made)
        return made

    def flat(self) -> Tensor:
        """Return its numbers in the order of memory."""
        with torch.no_grad():
            made = self.tensor()
        return made.as_strided((made.numel(),), (1,))


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor's numbers fill a stretch of memory, in any order of its dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
