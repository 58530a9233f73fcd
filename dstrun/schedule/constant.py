"""Replace the same fraction at every update (SET: Mocanu et al. 2018)."""

from __future__ import annotations

from dstrun.config.option import option
from dstrun.schedule.times import Times


@option
class Constant(Times):
    """a_t = alpha until t_end."""

    def fraction_at(self, step: int, total: int) -> float:
        """Return the fraction of active connections replaced at a step."""
        return self.fraction if step <= self.last(total) else 0.0
