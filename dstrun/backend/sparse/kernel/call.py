"""How compiled code is called: tensors as flat arrays, and on how many threads."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba.core.config import NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
from numba.np.ufunc import parallel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def works(tensor: Tensor) -> bool:
    """Return whether compiled code takes it: float32 or bfloat16 on the CPU, with numbers in it."""
    return fits(tensor) and not hollow(tensor)


def fits(tensor: Tensor) -> bool:
    """Return whether compiled code takes it, if there are numbers in it."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)


def hollow(tensor: Tensor) -> bool:
    """Return whether there are no numbers in it: memory is predicted, and nothing is to be computed."""
    return isinstance(tensor, FakeTensor)


def array(tensor: Tensor) -> np.ndarray:
    """View a contiguous tensor as a flat array; bfloat16 as its bits."""
    plain = tensor.detach()
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.uint16)
    return plain.numpy().reshape(-1)


def threads() -> int:
    """Make numba use as many threads as PyTorch does; both take them from one pool where both use OpenMP.

    numba's pool is made here, of the threads that the run may use: it wakes all of its threads for every call, those
    too that have nothing to do, and they spin on the cores of other runs.
    """
    count = min(torch.get_num_threads(), NUMBA_NUM_THREADS)
    if not parallel._is_initialized:
        parallel.NUM_THREADS = count
    elif parallel.threading_layer() != "omp":  # only OpenMP adds threads to a pool
        count = min(count, parallel.NUM_THREADS)
    numba.set_num_threads(count)
    return count
