"""Connections sorted by input channel: what the product with the transposed weight needs.

Shape letters: A active connections, O outputs, G groups, C input channels, T taps.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from dstrun.system.compiled import compiled
from dstrun.system.parts import SMALL, each, spans


def transpose(
    rows: Tensor, inputs: Tensor, taps: int, channels: int, groups: int, outputs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the connections by input channel, keeping the order of outputs among those of one channel.

    Args:
        rows: (O + 1,) first connection of each output.
        inputs: (A,) input of each connection, ``channel in its group * T + tap``.
        taps: T.
        channels: C.
        groups: G.
        outputs: O.

    Returns:
        (C + 1,) first place of each channel, (A,) ``output in its group * T + tap`` and (A,) the connection's number,
        of the smallest integer types; on the device of ``rows``.
    """
    from dstrun.backend.sparse.pattern import index_type
    from dstrun.layer.topology import number_type

    count = inputs.numel()
    types = number_type(count), index_type(outputs // groups * taps), number_type(count)
    sizes = channels // groups, outputs // groups
    if rows.device.type != "cpu":
        columns, codes, order = by_sorting(rows, inputs, taps, channels, *sizes)
        return columns.to(types[0]), codes.to(types[1]), order.to(types[2])
    columns = torch.zeros(channels + 1, dtype=types[0])
    codes, order = (torch.empty(count, dtype=dtype) for dtype in types[1:])
    workers = torch.get_num_threads() if count > SMALL else 1
    parts, place = spans(outputs, min(workers, outputs)), np.zeros((min(workers, outputs), channels), np.int64)
    lists = rows.numpy(), inputs.numpy(), taps, *sizes
    calls = [(*part, *lists, own) for part, own in zip(parts, place, strict=True)]
    each(_count, calls, workers)
    _begin(place, columns.numpy())
    each(_transpose, [(*call, codes.numpy(), order.numpy()) for call in calls], workers)
    return columns, codes, order


def by_sorting(
    rows: Tensor, inputs: Tensor, taps: int, channels: int, seen: int, outputs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Do so in plain PyTorch, in which no host waits for a GPU.

    Args:
        rows: (O + 1,).
        inputs: (A,).
        taps: T.
        channels: C.
        seen: C / G, channels of a group.
        outputs: O / G.

    Returns:
        (C + 1,), (A,) and (A,), of 32 or 64 bits.
    """
    numbers = torch.arange(rows.numel() - 1, dtype=torch.int32, device=rows.device)
    output = numbers.repeat_interleave(rows.diff(), output_size=inputs.numel())
    channel = output // outputs * seen + inputs // taps
    channel, order = channel.sort(stable=True)
    columns = torch.searchsorted(channel, torch.arange(channels + 1, dtype=channel.dtype, device=rows.device))
    codes = output % outputs * taps + inputs % taps
    return columns, codes[order], order


@compiled()
def _count(begin, end, rows, inputs, taps, channels, outputs, place):
    """Count the connections of some outputs in each channel: (C,)."""
    channel = np.arange(channels * taps) // taps  # of an input: two divisions a connection would take most of the time
    for o in range(begin, end):
        first = o // outputs * channels
        for k in range(rows[o], rows[o + 1]):
            place[first + channel[inputs[k]]] += 1


@compiled()
def _begin(place, columns):
    """Turn the counts of each part, (parts, C), into where it begins in each channel; and channels, (C + 1,)."""
    at = 0
    for c in range(place.shape[1]):
        columns[c] = at
        for part in range(place.shape[0]):
            count = place[part, c]
            place[part, c] = at
            at += count
    columns[place.shape[1]] = at


@compiled()
def _transpose(begin, end, rows, inputs, taps, channels, outputs, place, codes, order):
    """Put the connections of some outputs in their places."""
    channel = np.arange(channels * taps) // taps
    for o in range(begin, end):
        first, code = o // outputs * channels, o % outputs * taps
        for k in range(rows[o], rows[o + 1]):
            c = channel[inputs[k]]
            at = place[first + c]
            place[first + c] = at + 1
            codes[at] = code + inputs[k] - c * taps
            order[at] = k


@compiled(parallel=True)
def gather(values, order, ordered):
    """Put values (A,) into the transposed order: once and densely, since every read of them waits for memory."""
    for k in prange(order.shape[0]):
        ordered[k] = values[order[k]]
