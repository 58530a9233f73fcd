"""What kernels of PyTorch allocate for themselves on a CPU, by formulas; measured once (``docs/accounting.md``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def scratch(func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> list[int]:
    """Return the bytes that an operation holds besides inputs and outputs.

    Args:
        func: the operation, an overload of ``torch.ops.aten``.
        given: its tensors.
        made: its results.
    """
    return []
