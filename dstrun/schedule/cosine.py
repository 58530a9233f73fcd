"""Anneal the replaced fraction along a cosine (Dettmers and Zettlemoyer 2019; Evci et al. 2020)."""

from __future__ import annotations

import math
from typing import Annotated

from dstrun.config.option import Within, option
from dstrun.schedule.times import Times
from dstrun.system.trouble import ConfigError


@option
class Cosine(Times):
    """a_t = f + (alpha - f)(1 + cos(pi p)) / 2 with p from 0 at t_begin to 1 at t_end, from where a_t is zero.

    ``final_fraction`` is f, what is left just before t_end; zero unless a paper keeps some.
    """

    final_fraction: Annotated[float, Within(0, 1, high_open=True)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_fraction > self.fraction:
            raise ConfigError(
                f"schedule.final_fraction={self.final_fraction:g} must not exceed schedule.fraction={self.fraction:g}"
            )

    def fraction_at(self, step: int, total: int) -> float:
        """Return the fraction of active connections replaced at a step."""
        if step >= self.last(total):
            return 0.0
        fall = self.fraction - self.final_fraction
        return self.final_fraction + fall / 2 * (1 + math.cos(math.pi * self.progress(step, total)))
