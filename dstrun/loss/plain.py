"""Losses that were not written for dstrun: any function, or ``nn.Module``, of logits and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any

from dstrun.config.option import option
from dstrun.config.plain import call, resolved, settings
from dstrun.system.lazy import torch
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 4
"""Logits and labels that a loss is tried on."""


@option
class Plain:
    """A function with its settings, or a class made with them whose instances are called."""

    part: Mapping[str, Any] = field(hash=False)

    def build(self, classes: int, device: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss, once it has been tried.

        Raises:
            ConfigError: it cannot be called so, has parameters, which nothing would train, or does not give the mean
                over samples, by which a batch is split among passes and processes.
        """
        target, found = str(self.part["_target_"]), resolved(self.part)
        made = call(self.part) if isinstance(found, type) else partial(found, **settings(self.part))
        if isinstance(made, torch.nn.Module):
            if [*made.parameters()]:
                raise ConfigError(f"loss: {target} has parameters, which nothing trains: make them settings")
            made.to(device)
        check(made, target, classes, device)
        return made


def check(loss: Callable[[Tensor, Tensor], Tensor], name: str, classes: int, device: Any) -> None:
    """Check on a few samples that a loss gives one number with a gradient, and the mean over samples.

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
            f"loss: {name} cannot be called with logits ({SAMPLES}, {classes}) and labels ({SAMPLES}): {said}"
        ) from error
    if not isinstance(whole, torch.Tensor) or whole.shape != ():
        given = f"a tensor of shape {tuple(whole.shape)}" if isinstance(whole, torch.Tensor) else type(whole).__name__
        raise ConfigError(f"loss: {name} gives {given}: it must give one number, the mean over samples, as a tensor ()")
    if not whole.requires_grad:
        raise ConfigError(
            f"loss: {name} gives a number without gradient: it must be computed from the logits by PyTorch"
        )
    if not torch.allclose(whole, twice, rtol=1e-4, atol=1e-6):
        raise ConfigError(f"loss: {name} is not the mean over samples: it changes where every sample is there twice")
