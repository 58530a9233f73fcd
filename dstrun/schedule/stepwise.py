"""Decrease the replaced fraction at given points of training (Yuan et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from dstrun.config.option import Share, Within, option
from dstrun.schedule.times import Times
from dstrun.system.trouble import ConfigError


@option
class Stepwise(Times):
    """a_t = alpha ``drop``^n before t_end, n the ``milestones`` (shares of training) that have passed; then zero."""

    milestones: tuple[Share, ...] = (0.5625,)
    drop: Annotated[float, Within(0, 1, low_open=True)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ConfigError(f"schedule.milestones={list(self.milestones)} must increase")

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others (``identity``)."""
        idle = {"drop"} if not self.milestones else {"milestones"} if self.drop == 1 else set()
        return super().unread(parts) | idle

    def fraction_at(self, step: int, total: int) -> float:
        """Return the fraction of active connections replaced at a step."""
        if step >= self.last(total):
            return 0.0
        return self.fraction * self.drop ** sum(step >= round(share * total) for share in self.milestones)
