"""Replace the same fraction at every update (SET: Mocanu et al. 2018)."""

from __future__ import annotations

from typing import Annotated

from dstrun.option import AtLeast, ConfigError, Share, Within, option
from dstrun.schedule.update import update_steps


@option
class Constant:
    """a_t = alpha until t_end.

    ``fraction`` is alpha; ``end`` is t_end as a share of training; ``interval_steps`` or ``updates`` say outright
    when, else the recipe's interval scales with the length of the run (see ``dstrun.schedule.update``).
    """

    fraction: Annotated[float, Within(0, 1, low_open=True)] = 0.2
    end: Share = 0.6
    interval_steps: Annotated[int, AtLeast(1)] | None = None
    updates: Annotated[int, AtLeast(0)] | None = None
    recipe_interval_steps: Annotated[int, AtLeast(1)] = 1000
    recipe_steps: Annotated[int, AtLeast(1)] = 78000

    def __post_init__(self) -> None:
        if self.interval_steps is not None and self.updates is not None:
            raise ConfigError("schedule.interval_steps and schedule.updates both say when to update: set one of them")

    def steps(self, total: int) -> list[int]:
        """List the steps, counted from 1, at which a run of ``total`` steps updates its topology."""
        return update_steps(
            total, self.end, self.interval_steps, self.updates, self.recipe_interval_steps, self.recipe_steps
        )

    def fraction_at(self, step: int, total: int) -> float:
        """Give the fraction of active connections replaced at a step."""
        last = round(self.end * total)
        return self.fraction if step <= last else 0.0
