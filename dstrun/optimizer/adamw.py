"""Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from typing import ClassVar

from dstrun.config.option import option
from dstrun.optimizer.adam import Adam


@option
class AdamW(Adam):
    """``torch.optim.AdamW``, with the bias correction of a grown connection counted from its own first step."""

    decoupled: ClassVar[bool] = True
