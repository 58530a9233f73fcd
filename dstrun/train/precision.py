"""Forward and backward in fp32, or in 16 bits with weights and optimizer state in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Automatic mixed precision; fp16 scales the loss so that small gradients survive.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        device: where the network trains.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = TYPES.get(name)
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that a step may be left out."""
        return self.scaler.is_enabled()

    def autocast(self) -> torch.autocast:
        """Enter the lower precision for a forward pass."""
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass; with fp16, gradients are those of the scaled loss until ``step``."""
        self.scaler.scale(loss).backward()

    def step(self, *optimizers: torch.optim.Optimizer) -> None:
        """Take each optimizer's step; with fp16 it is left out where one of its gradients overflowed."""
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    def overflowed(self, finite: Iterable[Tensor]) -> bool:
        """Return whether gradients of a scaled loss overflowed; where the loss is not scaled, without a look.

        Args:
            finite: of each gradient, (), whether all of it is finite.
        """
        return self.scales and not all(map(bool, finite))

    def back_off(self) -> None:
        """Lower the scale as after a step that was left out."""
        state = self.scaler.state_dict()
        self.scaler.load_state_dict(state | {"scale": state["scale"] * state["backoff_factor"], "_growth_tracker": 0})

    def state(self) -> dict[str, Any]:
        """Give the scaler's state, for a checkpoint."""
        return self.scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's scaler."""
        if state:
            self.scaler.load_state_dict(state)
