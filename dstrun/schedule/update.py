"""At which steps the topology is updated; shared by every schedule.

A recipe states its interval at its own length (``recipe_interval_steps`` of ``recipe_steps``). A shorter run shortens
the interval in proportion, so that it still prunes and grows; a longer one keeps it, as RigL's 5x training does.
"""

from __future__ import annotations

from dstrun.option import ConfigError

SHORTEST = 10
"""Where a recipe's interval shrinks below this many steps, training between updates would hardly happen."""


def update_steps(
    total: int, end: float, interval: int | None, updates: int | None, recipe_interval: int, recipe_steps: int
) -> list[int]:
    """List the steps, counted from 1, at which the topology is updated.

    Args:
        total: steps of the run.
        end: share of training after which the topology stays as it is.
        interval: steps between updates, set outright.
        updates: how many updates, set outright.
        recipe_interval: the recipe's interval at its own length.
        recipe_steps: the recipe's length.

    Raises:
        ConfigError: more updates are wanted than there are steps before the end.
    """
    last = round(end * total)
    if updates is not None:
        if updates and updates >= last:
            raise ConfigError(
                f"schedule.updates={updates} do not fit into the {last} steps before schedule.end={end:g}"
            )
        return [i * last // (updates + 1) for i in range(1, updates + 1)]
    if interval is None:
        scaled = round(recipe_interval * min(1.0, total / recipe_steps))
        shortest = min(SHORTEST, recipe_interval, max(2, last // 3))
        interval = max(scaled, shortest)
    return list(range(interval, last + 1, interval))
