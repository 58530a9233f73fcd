"""The learning rate as a function of training progress, so that it scales with ``epochs``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, OneOf, Within, option
from dstrun.system.trouble import ConfigError


@option
class Rate:
    """Settings that every optimizer shares.

    The learning rate rises linearly over ``lr_warmup``, a share of training. Then ``multistep`` multiplies it by
    ``lr_drop`` at each of ``lr_milestones`` (shares of training), ``cosine`` anneals it to zero at the end and
    ``constant`` keeps it. ``decay=weights`` applies weight decay to the weights of layers only, not to biases and
    normalization.
    """

    lr: Annotated[float, Within(0, 1e6, low_open=True)] = 0.1
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    decay: Annotated[str, OneOf("all", "weights")] = "all"
    lr_schedule: Annotated[str, OneOf("multistep", "cosine", "constant")] = "multistep"
    lr_milestones: tuple[Annotated[float, Within(0, 1)], ...] = (0.4, 0.6)
    lr_drop: Annotated[float, Within(0, 1, low_open=True)] = 0.1
    lr_warmup: Annotated[float, Within(0, 1, high_open=True)] = 0.0

    elementwise: ClassVar[bool] = False
    """Whether it treats each number alone, so that a step may be taken on a part of a weight (``storage``)."""

    @property
    def stateless(self) -> bool:
        """Whether it keeps nothing of a weight from one step to the next."""
        return False

    def __post_init__(self) -> None:
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)):
            raise ConfigError(f"optimizer.lr_milestones={list(self.lr_milestones)} must increase")

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others (``identity``)."""
        if self.lr_schedule != "multistep":
            return {"lr_milestones", "lr_drop"}
        return {"lr_drop"} if not self.lr_milestones else {"lr_milestones"} if self.lr_drop == 1 else set()

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of ``total``."""
        warm = self.lr_warmup * total
        if step < warm:
            return self.lr * (step + 1) / (math.floor(warm) + 1)
        if self.lr_schedule == "multistep":
            return self.lr * self.lr_drop ** sum(step >= round(m * total) for m in self.lr_milestones)
        if self.lr_schedule == "cosine":
            return self.lr / 2 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        return self.lr
