"""Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, cast

from dstrun.optimizer.rate import Rate
from dstrun.option import ConfigError, Within, option

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@option
class AdamW(Rate):
    """``torch.optim.AdamW``.

    Both moments of a grown or pruned connection restart at zero; the step count is the parameter's, so the bias
    correction of a grown connection is slightly off.
    """

    betas: tuple[Annotated[float, Within(0, 1, high_open=True)], ...] = (0.9, 0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2:
            raise ConfigError(f"optimizer.betas={list(self.betas)} must be two numbers")

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer."""
        import torch

        betas = cast(tuple[float, float], self.betas)
        return torch.optim.AdamW(parameters, self.lr, betas, weight_decay=self.weight_decay)
