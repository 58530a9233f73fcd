"""Positions as kernels read them: by output, and by input for the transposed product; smallest integer types.

Positions by input follow from those by output, and take three times the bytes. A convolution, whose connections see
many positions of every image, sorts them anew in every backward pass, which takes little beside its products; a linear
layer keeps them.

Shape letters: A active connections, O outputs, I inputs of one output, G groups, C input channels (or features),
T taps of a kernel (kh kw; 1 for a linear layer). An input i of an output is ``channel * T + tap``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.layer.geometry import Geometry
from dstrun.layer.topology import Topology, number_type, ordered, others
from dstrun.system.transfer import sent

KEPT = ("columns", "outputs", "order")
"""Buffers of what ``Pattern.by_input`` returns, where it is kept."""


@dataclass(frozen=True)
class Moves:
    """Positions after an update, and where each connection comes from.

    Attributes:
        rows: (O + 1,) as in ``Pattern``.
        inputs: (B,) likewise.
        source: (B,) the number of each before, -1 where it is new; with ``place``, the numbers of those that stay.
        place: their numbers now, in the same order.
    """

    rows: Tensor
    inputs: Tensor
    source: Tensor
    place: Tensor | None = None

    def moved(self, tensor: Tensor) -> Tensor:
        """Return the numbers of a tensor of the old connections, (A,), for the new ones, (B,): 0 for those grown."""
        if self.place is not None:
            return tensor.new_zeros(self.inputs.shape).index_put_((self.place,), tensor[self.source])
        from dstrun.backend.sparse.kernel.rewire import moved

        return moved(tensor, self.source)


class Pattern(nn.Module):
    """The positions of one layer's active connections.

    Attributes:
        rows: (O + 1,) the connections of output o are those numbered ``rows[o]`` up to ``rows[o + 1]``.
        inputs: (A,) the input of each, in [0, I).
    """

    rows: Tensor
    inputs: Tensor

    def __init__(self, geometry: Geometry, topology: Topology, device: torch.device | None = None) -> None:
        super().__init__()
        self.shape = geometry.shape
        self.groups = geometry.groups
        self.taps = math.prod(geometry.shape[2:])
        for name in ("rows", "inputs"):
            self.register_buffer(name, torch.empty(0, device=device))
        self.keeps = len(geometry.shape) == 2
        self.set(topology)

    @property
    def per_output(self) -> int:
        """I, inputs of one output."""
        return self.shape[1] * self.taps

    @property
    def channels(self) -> int:
        """C, input channels of all groups."""
        return self.shape[1] * self.groups

    @property
    def count(self) -> int:
        """A, active connections."""
        return self.inputs.numel()

    def set(self, topology: Topology) -> None:
        """Store the positions of a topology."""
        self.rows, self.inputs = rows_of(sent(topology.positions, self.rows.device), self.shape[0], self.per_output)
        self._keep()

    def rewire(self, prune: Tensor, grow: Tensor) -> Moves:
        """Return the positions with some replaced, and where each connection was before; ``become`` stores them.

        Args:
            prune: active positions, on the CPU.
            grow: inactive positions, on the CPU.

        Raises:
            ValueError: as ``Topology.rewired`` does.
        """
        device = self.rows.device
        if device.type == "cpu":
            from dstrun.backend.sparse.kernel.rewire import rewire

            return Moves(*rewire(self.rows, self.inputs, self.per_output, ordered(prune), ordered(grow)))
        old = self.topology()
        new = old.rewired(prune, grow)
        kept, place = sent(others(old.positions, prune), device), sent(others(new.positions, grow), device)
        rows, inputs = rows_of(sent(new.positions, device), self.shape[0], self.per_output)
        return Moves(rows, inputs, kept, place)

    def become(self, moves: Moves) -> None:
        """Store the positions that ``rewire`` gave."""
        self.rows, self.inputs = moves.rows, moves.inputs
        self._keep()

    def by_input(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the connections sorted by input channel, and by output among those of one channel.

        Returns:
            (C + 1,), the transposed rows: where the connections of each channel begin; (A,), in that order, the output
            within its group, times T, plus the tap; (A,), in that order, the connection's number.
        """
        if not self.keeps:
            return self._sorted()
        columns, outputs, order = (self.get_buffer(name) for name in KEPT)
        return columns, outputs, order

    def _keep(self) -> None:
        if self.keeps:
            for name, tensor in zip(KEPT, self._sorted(), strict=True):
                self.register_buffer(name, tensor, persistent=False)

    def _sorted(self) -> tuple[Tensor, Tensor, Tensor]:
        from dstrun.backend.sparse.kernel.transpose import transpose

        return transpose(self.rows, self.inputs, self.taps, self.channels, self.groups, self.shape[0])

    def topology(self) -> Topology:
        """Return the positions as a topology."""
        if self.rows.device.type == "cpu":
            from dstrun.backend.sparse.kernel.rewire import flat

            return Topology(self.shape, flat(self.rows, self.inputs, self.per_output))
        counts = self.rows.long().diff()
        first = torch.arange(self.shape[0], device=counts.device) * self.per_output
        positions = first.repeat_interleave(counts, output_size=self.count)
        return Topology(self.shape, positions.add_(self.inputs.to(torch.int64)).cpu())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: Any,
        extra: Any,
        errors: Any,
    ) -> None:
        """Accept any number of positions, but only those of this layer: kernels would read past its end."""
        rows, inputs = state_dict.get(f"{prefix}rows"), state_dict.get(f"{prefix}inputs")
        if rows is not None and inputs is not None:
            if not self._fits(rows, inputs):
                errors.append(f"{prefix}rows, {prefix}inputs: not positions of a weight {self.shape}")
                return
            self.rows, self.inputs = (torch.empty_like(loaded, device=self.rows.device) for loaded in (rows, inputs))
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, extra, errors)
        self._keep()

    def _fits(self, rows: Tensor, inputs: Tensor) -> bool:
        """Return whether rows and inputs are those of a topology of this shape."""
        if rows.shape != self.rows.shape or inputs.dim() != 1:
            return False
        if (rows.dtype, inputs.dtype) != (number_type(inputs.numel()), index_type(self.per_output)):
            return False
        whole = int(rows[0]) == 0 and int(rows[-1]) == inputs.numel() and bool((rows.diff() >= 0).all())
        return whole and bool((inputs.to(torch.int64) < self.per_output).all())

    def tensors(self) -> list[Tensor]:
        """List everything that is stored."""
        return [buffer for buffer in self._buffers.values() if buffer is not None]


def rows_of(positions: Tensor, outputs: int, per_output: int) -> tuple[Tensor, Tensor]:
    """Split sorted flat positions (M,) into ``rows`` (O + 1,) and ``inputs`` (M,), of the smallest types."""
    if positions.device.type == "cpu":
        from dstrun.backend.sparse.kernel.rewire import split

        rows = torch.empty(outputs + 1, dtype=number_type(positions.numel()))
        inputs = torch.empty(positions.shape, dtype=index_type(per_output))
        split(positions, per_output, rows, inputs)
        return rows, inputs
    ends = torch.arange(outputs + 1, device=positions.device) * per_output
    rows = torch.searchsorted(positions, ends)
    inputs = (positions % per_output).to(index_type(per_output))
    return rows.to(number_type(positions.numel())), inputs


def index_type(size: int) -> torch.dtype:
    """Return the smallest of 16, 32 and 64 bits that holds 0 up to ``size - 1``.

    Kernels are compiled for each combination of types: 8-bit positions would double the waiting for few bytes.
    """
    return torch.int16 if size <= 1 << 15 else number_type(size)
