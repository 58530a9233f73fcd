"""Decrease the replaced fraction with a cubic (Zhu and Gupta 2018)."""

from __future__ import annotations

from dstrun.config.option import option
from dstrun.schedule.times import Times


@option
class Cubic(Times):
    """a_t = alpha (1 - p)^3 with p from 0 at t_begin to 1 at t_end."""

    def fraction_at(self, step: int, total: int) -> float:
        """Return the fraction at a step."""
        return self.fraction * (1 - self.progress(step, total)) ** 3
