"""When the topology is updated, and which fraction of it."""

from __future__ import annotations

from typing import Protocol


class Schedule(Protocol):
    """What an option of the group ``schedule`` can do; all of ours are ``Times``, which has the rest."""

    def steps(self, total: int) -> list[int]:
        """List the steps, counted from 1, at which a run of ``total`` steps updates its topology."""
        ...

    def last(self, total: int) -> int:
        """Return the step after which nothing is updated, in a run of ``total``."""
        ...

    def fraction_at(self, step: int, total: int) -> float:
        """Return the share of its connections that a layer replaces, or that are to go, at a step."""
        ...


def update_steps(schedule: Schedule, total: int) -> list[int]:
    """List the steps at which a schedule replaces anything, in a run of ``total``."""
    return [step for step in schedule.steps(total) if schedule.fraction_at(step, total) > 0]
