"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import Within, option
from dstrun.optimizer.rate import Rate
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@option
class SGD(Rate):
    """``torch.optim.SGD``; weight decay acts on every parameter, and on active connections only where sparse."""

    momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    nesterov: bool = False

    elementwise: ClassVar[bool] = True

    @property
    def stateless(self) -> bool:
        """Whether there is no momentum."""
        return self.momentum == 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optimizer.nesterov=true makes no sense with optimizer.momentum=0")

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer."""
        import torch

        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )
