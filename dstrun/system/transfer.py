"""Between the host, where topologies are kept and connections drawn, and a device, which should not be kept waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; neither of a GPU and the host waits for the other."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors on the host, flattened; those on a device come in one copy for each type."""
    found = [tensor.detach().flatten() for tensor in tensors]
    away = [i for i, tensor in enumerate(found) if tensor.device.type != "cpu"]
    for dtype in {found[i].dtype for i in away}:
        alike = [i for i in away if found[i].dtype == dtype]
        parts = torch.cat([found[i] for i in alike]).cpu().split([found[i].numel() for i in alike])
        for i, part in zip(alike, parts, strict=True):
            found[i] = part
    return found


def numbers(values: Sequence[float | Tensor]) -> list[float]:
    """Return numbers on the host, those in tensors () read together."""
    read = iter(torch.cat(fetched([v for v in values if isinstance(v, torch.Tensor)]) or [torch.empty(0)]).tolist())
    return [next(read) if isinstance(value, torch.Tensor) else value for value in values]
