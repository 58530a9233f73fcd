"""Adam that corrects the bias of all weights by the same number of steps, as ``torch.optim.Adam`` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from dstrun.config.option import option
from dstrun.optimizer.adam import Adam
from dstrun.optimizer.aged import AgedAdam

if TYPE_CHECKING:
    from torch import nn


class Shared(AgedAdam):
    """Count the steps of grown weights from the first of training."""

    def before_growth(self, weight: Tensor) -> None:
        """Count nothing."""


@option
class SharedAdam(Adam):
    """``optimizer=adam``, except that grown weights share the step count of the whole weight."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Any:
        """Make the optimizer."""
        betas = cast(tuple[float, float], self.betas)
        return Shared(parameters, self.lr, betas, weight_decay=self.weight_decay, decoupled=self.decoupled)
