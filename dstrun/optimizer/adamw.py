"""Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from typing import ClassVar

from dstrun.config.option import option
from dstrun.optimizer.adam import Adam


@option
class AdamW(Adam):
    """``torch.optim.AdamW``, but that a grown connection is corrected for bias by its own steps, as with ``Adam``."""

    decoupled: ClassVar[bool] = True
