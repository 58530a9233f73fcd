"""Optimizers not written for dstrun: any ``torch.optim.Optimizer``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any

from dstrun.config.option import AtLeast, OneOf, option
from dstrun.config.plain import call
from dstrun.config.written import arguments
from dstrun.optimizer.rate import Rate
from dstrun.system.lazy import torch
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@option
class Plain(Rate):
    """An optimizer called with parameters and its settings; the learning rate is constant unless ``lr_schedule`` says.

    Settings of ``Rate`` may stand beside its own. ``lr`` and ``weight_decay`` are those of the class, by default too.
    """

    part: Mapping[str, Any] = field(hash=False)
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    lr_schedule: Annotated[str, OneOf("multistep", "cosine", "constant")] = "constant"

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer.

        Raises:
            ConfigError: it cannot be called so, gives no optimizer, or one whose rate cannot be set.
        """
        target = str(self.part["_target_"])
        taken = arguments(target)
        shared = {key: getattr(self, key) for key in ("lr", "weight_decay") if key in taken.defaults}
        made = call(self.part, parameters, **shared)
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer: {target} returns {type(made).__name__}: it must return a torch.optim.Optimizer"
            )
        if not all("lr" in group for group in made.param_groups):
            raise ConfigError(f"optimizer: {target} has no lr in its param_groups, by which the learning rate is set")
        if _forgets(made):
            made.before_growth = lambda weight: None  # type: ignore[attr-defined]
        return made


def _forgets(made: Optimizer) -> bool:
    """Return whether all that an optimizer keeps of a weight starts at zero, but for a count that it does not read."""
    if type(made) is torch.optim.Adagrad:
        return not any(group["lr_decay"] or group["initial_accumulator_value"] for group in made.param_groups)
    return type(made) in (torch.optim.RMSprop, torch.optim.Adadelta)
