"""PyTorch's own sparse matrices, with the index types that their products need no conversion for."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.sparse import check_sparse_tensor_invariants  # a call's own check_invariants=False warns in 2.11

from dstrun.layer.topology import Topology
from dstrun.system.transfer import sent


def coo(topology: Topology, values: Tensor, transposed: bool = False) -> Tensor:
    """Put the weights of a linear layer, (A,), into a coalesced COO matrix: (O, I), or (I, O) transposed."""
    rows, columns, values, shape = _sorted(topology, values, transposed)
    indices = torch.stack((rows, columns))
    with check_sparse_tensor_invariants(False):
        return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True)


def csr(topology: Topology, values: Tensor, transposed: bool = False) -> Tensor:
    """Put the weights of a linear layer, (A,), into a CSR matrix: (O, I), or (I, O) transposed."""
    rows, columns, values, shape = _sorted(topology, values, transposed)
    starts = torch.searchsorted(rows, torch.arange(shape[0] + 1, device=rows.device))
    with warnings.catch_warnings(), check_sparse_tensor_invariants(False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values, shape)


def parts(tensor: Tensor) -> list[Tensor]:
    """List the plain tensors that a tensor consists of."""
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        return [tensor.indices(), tensor.values()]
    if tensor.layout == torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor]


def _sorted(topology: Topology, values: Tensor, transposed: bool) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Return rows, columns and values, (A,) each, in the order of rows, and the shape of the matrix."""
    positions = sent(topology.positions, values.device)
    rows, columns = positions // topology.shape[1], positions % topology.shape[1]
    if not transposed:
        return rows, columns, values, topology.shape
    order = columns.argsort(stable=True)
    return columns[order], rows[order], values[order], topology.shape[::-1]
