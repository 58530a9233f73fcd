"""Bring numbers that were made on the CPU to where the layers are."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(numbers: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU takes it from pinned memory, so that the host need not wait for the copy.

    Args:
        numbers: of any shape, on the CPU or on the device already.
        device: where they are needed.
    """
    if device.type != "cuda" or numbers.is_cuda:
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)
