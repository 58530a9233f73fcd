"""Positions as kernels read them, made, read and replaced in compiled loops over outputs, which threads share.

Shape letters: A active connections, O outputs, I inputs of one output, P pruned, G grown, B active afterwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dstrun.backend.sparse.kernel.call import hollow
from dstrun.layer.topology import NONSENSE, number_type
from dstrun.system.compiled import compiled
from dstrun.system.parts import SMALL, in_parts

PLAIN = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The types as which numbers of so many bytes are moved."""


def split(positions: Tensor, per_output: int, rows: Tensor, inputs: Tensor) -> None:
    """Split rising flat positions (A,) into rows (O + 1,) and inputs (A,), which are overwritten."""
    _share(_split, rows.numel() - 1, inputs.numel(), positions, per_output, rows, inputs)
    rows[-1] = inputs.numel()


def flat(rows: Tensor, inputs: Tensor, per_output: int) -> Tensor:
    """Put rows (O + 1,) and inputs (A,) together: (A,) int64 flat positions."""
    positions = torch.empty(inputs.numel(), dtype=torch.int64)
    _share(_flat, rows.numel() - 1, inputs.numel(), rows, inputs, per_output, positions)
    return positions


def rewire(rows: Tensor, inputs: Tensor, per_output: int, prune: Tensor, grow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out some connections and add others.

    Args:
        rows: (O + 1,) first connection of each output.
        inputs: (A,) input of each.
        per_output: I.
        prune: (P,) sorted flat positions.
        grow: (G,) sorted flat positions.

    Returns:
        The new rows and inputs, (B,); and (B,) the number that each connection had before, -1 where it is new.

    Raises:
        ValueError: as ``Topology.rewired`` does.
    """
    count = max(0, inputs.numel() - prune.numel() + grow.numel())
    new_rows = torch.empty(rows.shape, dtype=number_type(count))
    new_inputs, source = inputs.new_empty(count), torch.empty(count, dtype=number_type(inputs.numel()))
    wrong = np.zeros(2, np.bool_)
    size = inputs.numel() + grow.numel()
    lists = rows, inputs, per_output, prune, grow, new_rows, new_inputs, source
    _share(_rewire, rows.numel() - 1, size, *lists, wrong)
    new_rows[-1] = count
    if wrong.any():
        raise ValueError(NONSENSE[int(wrong.argmax())])
    return new_rows, new_inputs, source


def moved(tensor: Tensor, source: Tensor) -> Tensor:
    """Return the numbers of a tensor (A,) at their new places, (B,), and 0 where ``source`` has -1."""
    new = tensor.new_empty(source.shape)
    if not hollow(tensor):
        plain = PLAIN[tensor.dtype.itemsize]
        _share(_move, source.numel(), source.numel(), source, tensor.contiguous().view(plain), new.view(plain))
    return new


def _share(work, count, size, *arguments):
    """Call compiled code on arrays of tensors, with threads where there is much to do."""
    arrays = [given.numpy() if isinstance(given, Tensor) else given for given in arguments]
    in_parts(work, count, torch.get_num_threads() if size > SMALL else 1, *arrays)


@compiled()
def _split(begin, end, positions, per_output, rows, inputs):
    k = np.searchsorted(positions, begin * per_output) if begin else 0
    for o in range(begin, end):
        rows[o], first = k, o * per_output
        while k < positions.size and positions[k] < first + per_output:
            inputs[k] = positions[k] - first
            k += 1


@compiled()
def _flat(begin, end, rows, inputs, per_output, positions):
    for o in range(begin, end):
        first = o * per_output
        for k in range(rows[o], rows[o + 1]):
            positions[k] = first + inputs[k]


@compiled()
def _rewire(begin, end, rows, inputs, per_output, prune, grow, new_rows, new_inputs, source, wrong):
    last = end == rows.size - 1
    p, g = np.searchsorted(prune, begin * per_output), np.searchsorted(grow, begin * per_output)
    out = prune.size if last else np.searchsorted(prune, end * per_output)
    come = grow.size if last else np.searchsorted(grow, end * per_output)
    at, stop, before = rows[begin] - p + g, rows[end] - out + come, np.int64(-1)
    if begin == 0:
        p, g, at = 0, 0, 0
    for o in range(begin, end):
        first = o * per_output
        new_rows[o] = at
        for k in range(rows[o], rows[o + 1] + 1):
            position = first + (inputs[k] if k < rows[o + 1] else per_output)
            while g < come and grow[g] < position:
                wrong[1] |= grow[g] == before
                before = grow[g]
                if at == stop:
                    wrong[0] = True
                    return
                new_inputs[at], source[at] = before - first, -1
                at, g = at + 1, g + 1
            if k == rows[o + 1]:
                break
            if p < out and prune[p] == position:
                p += 1
                continue
            wrong[1] |= position == before
            before = position
            if at == stop:
                wrong[0] = True
                return
            new_inputs[at], source[at] = inputs[k], k
            at += 1
    wrong[0] |= p < out
    wrong[1] |= g < come


@compiled()
def _move(begin, end, source, old, new):
    if old.size == 0:
        new[begin:end] = 0
        return
    for n in range(begin, end):
        place = source[n]
        number = old[max(place, 0)]
        new[n] = number if place >= 0 else 0
