"""Connections sorted by input channel: what the product with the transposed weight needs.

Shape letters: A active connections, O outputs, G groups, C input channels, T taps.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from dstrun.compiled import compiled


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
    from dstrun.backend.pattern import index_type, number_type

    count = inputs.numel()
    columns = torch.zeros(channels + 1, dtype=number_type(count))
    codes = torch.empty(count, dtype=index_type(outputs // groups * taps))
    order = torch.empty(count, dtype=number_type(count))
    arrays = [t.cpu().numpy() for t in (rows, inputs)]
    _transpose(*arrays, taps, channels // groups, outputs // groups, columns.numpy(), codes.numpy(), order.numpy())
    return columns.to(rows.device), codes.to(rows.device), order.to(rows.device)


@compiled()
def _transpose(rows, inputs, taps, channels, outputs, columns, codes, order):
    place = np.zeros(columns.shape[0], np.int64)
    for o in range(rows.shape[0] - 1):
        first = o // outputs * channels
        for k in range(rows[o], rows[o + 1]):
            place[first + inputs[k] // taps + 1] += 1
    for c in range(place.shape[0] - 1):
        place[c + 1] += place[c]
        columns[c + 1] = place[c + 1]
    for o in range(rows.shape[0] - 1):
        first = o // outputs * channels
        for k in range(rows[o], rows[o + 1]):
            c = inputs[k] // taps
            at = place[first + c]
            place[first + c] = at + 1
            codes[at] = (o % outputs) * taps + inputs[k] % taps
            order[at] = k


@compiled(parallel=True)
def gather(values, order, ordered):
    """Put values (A,) into the transposed order: once and densely, since every read of them waits for memory."""
    for k in prange(order.shape[0]):
        ordered[k] = values[order[k]]
