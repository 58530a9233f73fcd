"""Forward and backward in fp32 or TF32, or in 16 bits with weights and optimizer state in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from dstrun.system.ranks import Ranks
from dstrun.system.trouble import ConfigError
from dstrun.train.device import device_name

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_products(name: str, device: torch.device) -> None:
    """Set how a GPU multiplies fp32 numbers, in convolutions and matrix products alike; PyTorch's defaults differ.

    TF32 rounds factors to 10 bits of mantissa and sums in fp32.

    Args:
        name: a precision; all but ``tf32`` multiply fp32 numbers as IEEE 754 has it.
        device: where the network trains.

    Raises:
        ConfigError: ``tf32`` on what has none.
    """
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        here = device_name(device)
        raise ConfigError(f"precision=tf32 needs an NVIDIA GPU of Ampere or later, and this run trains on {here}")
    if device.type == "cuda":
        cudnn: Any = torch.backends.cudnn
        for what in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul):
            what.fp32_precision = "tf32" if name == "tf32" else "ieee"


def likes_channels_last(name: str, device: torch.device) -> bool:
    """Return whether convolutions are faster with channels innermost: on CPUs, and on the tensor cores of GPUs.

    On one H200 a step of ResNet-56 took 0.73 (tf32) and 0.54 (bf16) of the time, and 1.22 in fp32 (``docs/gpu.md``).
    """
    return device.type == "cpu" or (device.type == "cuda" and name != "fp32")


def weights_innermost(
    config: dict[str, Any], optimizer: str | None, start: str, device: torch.device, ranks: Ranks
) -> bool:
    """Return whether convolutions' weights have their channels innermost, too: on a GPU where nothing flattens them.

    cuDNN would turn each weight twice a step, and its gradient once.

    Args:
        config: of the run.
        optimizer: its option.
        start: what the method starts from (``Method.start``).
        device: where the network trains.
        ranks: the processes that train it.
    """
    plain = start != "all" and optimizer == "sgd" and config["powerprop"] == 1 and ranks.size == 1
    return plain and device.type == "cuda" and likes_channels_last(config["precision"], device)


def like(weight: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor of a weight's shape, laid out in memory as the weight is."""
    return tensor if tensor.stride() == weight.stride() else torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay out an optimizer's state, once loaded, as it had grown: like the weights; a count of steps on the host."""
    for weight, kept in optimizer.state.items():
        kept |= {key: like(weight, t) for key, t in kept.items() if getattr(t, "shape", None) == weight.shape}
        if isinstance(kept.get("step"), Tensor):
            kept["step"] = kept["step"].cpu()  # where torch has it: read from a GPU, every step would wait for it


def products(device: torch.device) -> dict[str, str]:
    """Return how fp32 numbers are multiplied now, in convolutions and in matrix products: ``ieee`` or ``tf32``."""
    if device.type != "cuda":
        return {"convolution": "ieee", "matrix": "ieee"}
    cudnn: Any = torch.backends.cudnn
    return {"convolution": cudnn.conv.fp32_precision, "matrix": str(torch.backends.cuda.matmul.fp32_precision)}


class Precision:
    """Automatic mixed precision; fp16 scales the loss so that small gradients survive.

    Args:
        name: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
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
        """Return the scaler's state, for a checkpoint."""
        return self.scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's scaler."""
        if state:
            self.scaler.load_state_dict(state)
