"""PyTorch's own compressed sparse rows, with the index type that its products need no conversion for."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dstrun.topology import Topology


def csr(topology: Topology, values: Tensor, transposed: bool = False) -> Tensor:
    """Put the weights of a linear layer, (A,), into a sparse matrix: (O, I), or (I, O) transposed."""
    rows, columns = topology.positions // topology.shape[1], topology.positions % topology.shape[1]
    if transposed:
        order = columns.argsort(stable=True)
        rows, columns, values = columns[order], rows[order], values[order]
    shape = topology.shape[::-1] if transposed else topology.shape
    starts = torch.searchsorted(rows, torch.arange(shape[0] + 1, device=rows.device))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values, shape, check_invariants=False)


def parts(tensor: Tensor) -> list[Tensor]:
    """List the plain tensors that a tensor consists of."""
    if tensor.layout != torch.sparse_csr:
        return [tensor]
    tensor = tensor.detach()
    return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
