"""Your own losses in place of the cross-entropy: an option class with ``build(classes, device)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dstrun.system.lazy import torch
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 4
"""Logits and labels that a loss is tried on."""


class Loss(Protocol):
    """What an option of the group ``loss`` can do."""

    def build(self, classes: int, device: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of logits (B, classes) float32 and labels (B,) int64: the mean loss over samples, ().

        Raises:
            ConfigError: it cannot be made.
        """
        ...


def check(loss: Callable[[Tensor, Tensor], Tensor], name: str | None, classes: int, device: Any) -> None:
    """Check on a few samples that a loss gives one number with a gradient, and the mean over samples.

    By the mean a batch is split among passes and processes.

    Raises:
        ConfigError: it does not.
    """
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, classes, generator=draws).to(device).requires_grad_()
    y = torch.arange(SAMPLES, device=device) % classes
    try:
        whole, twice = loss(x, y), loss(torch.cat([x, x]), torch.cat([y, y]))
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"loss={name} cannot be called with logits ({SAMPLES}, {classes}) and labels ({SAMPLES}): {said}"
        ) from error
    if not isinstance(whole, torch.Tensor) or whole.shape != ():
        given = f"a tensor of shape {tuple(whole.shape)}" if isinstance(whole, torch.Tensor) else type(whole).__name__
        raise ConfigError(
            f"loss={name} returns {given}: it must return one number, the mean over samples, as a tensor ()"
        )
    if not whole.requires_grad:
        raise ConfigError(
            f"loss={name} returns a number without gradient: it must be computed from the logits by PyTorch"
        )
    if not torch.allclose(whole, twice, rtol=1e-4, atol=1e-6):
        raise ConfigError(f"loss={name} is not the mean over samples: it changes when the batch is duplicated")
