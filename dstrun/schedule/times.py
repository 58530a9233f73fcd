"""When the topology is updated; shared by every schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from dstrun.config.option import AtLeast, OneOf, Share, Within, option
from dstrun.schedule.interval import shortened
from dstrun.system.trouble import ConfigError


@option
class Times:
    """Settings that every schedule shares.

    ``fraction`` is alpha; ``begin`` and ``end`` are t_begin and t_end as shares of training, outside which the topology
    is fixed. The first update comes one interval after t_begin, or with ``start=begin`` at t_begin itself.
    ``interval_steps`` or ``updates`` set the interval directly. Otherwise it is the recipe's (``recipe_interval_steps``
    in a training of ``recipe_steps``), shortened in proportion in a shorter run, so that it still updates; a longer run
    keeps the interval, as RigL's 5x training does.
    """

    fraction: Annotated[float, Within(0, 1, low_open=True)] = 0.2
    begin: Share = 0.0
    end: Share = 0.6
    start: Annotated[str, OneOf("interval", "begin")] = "interval"
    interval_steps: Annotated[int, AtLeast(1)] | None = None
    updates: Annotated[int, AtLeast(0)] | None = None
    recipe_interval_steps: Annotated[int, AtLeast(1)] = 1000
    recipe_steps: Annotated[int, AtLeast(1)] = 78000

    def __post_init__(self) -> None:
        if self.interval_steps is not None and self.updates is not None:
            raise ConfigError("schedule.interval_steps and schedule.updates both set when to update: set one of them")
        if self.begin >= self.end > 0:
            raise ConfigError(f"schedule.begin={self.begin:g} must be below schedule.end={self.end:g}")

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others (``identity``)."""
        explicit = self.interval_steps is not None or self.updates is not None
        return {"recipe_interval_steps", "recipe_steps"} if explicit else set()

    def first(self, total: int) -> int:
        """Return t_begin in steps, in a run of ``total``."""
        return round(self.begin * total)

    def progress(self, step: int, total: int) -> float:
        """Return how far a step is between t_begin and t_end: 0 to 1."""
        first, last = self.first(total), self.last(total)
        return min(1.0, max(0, step - first) / (last - first)) if last > first else 1.0

    def last(self, total: int) -> int:
        """Return t_end in steps, in a run of ``total``."""
        return round(self.end * total)

    def steps(self, total: int) -> list[int]:
        """List the steps, counted from 1, at which a run of ``total`` steps updates its topology.

        Raises:
            ConfigError: more updates are wanted than there are steps before the end.
        """
        first, last, updates = self.first(total), self.last(total), self.updates
        if updates is not None:
            if updates and updates >= last - first:
                where = f"{last - first} steps " + (f"from schedule.begin={self.begin:g} to" if first else "before")
                raise ConfigError(f"schedule.updates={updates} do not fit into the {where} schedule.end={self.end:g}")
            if self.start == "begin":
                return [first + 1 + i * (last - first) // updates for i in range(updates)]
            return [first + i * (last - first) // (updates + 1) for i in range(1, updates + 1)]
        interval = self.interval_steps
        if interval is None:
            interval = shortened(self.recipe_interval_steps, self.recipe_steps, total, last - first, least=2)
        return list(range(first + (1 if self.start == "begin" else interval), last + 1, interval))
