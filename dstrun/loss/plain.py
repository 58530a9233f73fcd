"""Losses not written for dstrun: any function, or ``nn.Module``, of logits and labels."""

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


@option
class Plain:
    """A function with its settings, or a class made with them whose instances are called."""

    part: Mapping[str, Any] = field(hash=False)

    def build(self, classes: int, device: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss.

        Raises:
            ConfigError: it cannot be made so, or has parameters, which nothing would train.
        """
        target, found = str(self.part["_target_"]), resolved(self.part)
        made = call(self.part) if isinstance(found, type) else partial(found, **settings(self.part))
        if isinstance(made, torch.nn.Module):
            if [*made.parameters()]:
                raise ConfigError(f"loss: {target} has parameters, which nothing trains: make them settings")
            made.to(device)
        return made
