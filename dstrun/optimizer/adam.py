"""Adam (Kingma and Ba 2015), with weight decay as a part of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from dstrun.config.option import Within, option
from dstrun.optimizer.rate import Rate
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@option
class Adam(Rate):
    """``torch.optim.Adam``, with the bias correction of a grown connection counted from its own first step.

    Both moments of a grown connection and its step count start at zero: it is updated as by an Adam that starts then.
    """

    betas: tuple[Annotated[float, Within(0, 1, high_open=True)], ...] = (0.9, 0.999)

    decoupled: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2:
            raise ConfigError(f"optimizer.betas={list(self.betas)} must be two numbers")

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the optimizer."""
        from dstrun.optimizer.aged import AgedAdam

        betas = cast(tuple[float, float], self.betas)
        return AgedAdam(parameters, self.lr, betas, weight_decay=self.weight_decay, decoupled=self.decoupled)
