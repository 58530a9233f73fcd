"""Anneal the replaced fraction along a cosine (Dettmers and Zettlemoyer 2019; Evci et al. 2020)."""

from __future__ import annotations

import math

from dstrun.option import option
from dstrun.schedule.times import Times


@option
class Cosine(Times):
    """a_t = (alpha / 2)(1 + cos(pi t / t_end)), zero from t_end on."""

    def fraction_at(self, step: int, total: int) -> float:
        """Give the fraction of active connections replaced at a step."""
        last = self.last(total)
        return 0.0 if step >= last else self.fraction / 2 * (1 + math.cos(math.pi * step / last))
