"""Values that change at given points of training, as in the papers' tables of epochs; as shares of the run."""

from __future__ import annotations

from collections.abc import Sequence

from dstrun.system.trouble import ConfigError


def check_stages(name: str, values: Sequence[float], changes_name: str, changes: Sequence[float]) -> None:
    """Check that there is one value more than changes, and that the changes increase.

    Raises:
        ConfigError: said with both names.
    """
    if list(changes) != sorted(set(changes)):
        raise ConfigError(f"{changes_name}={list(changes)} must increase")
    if len(values) != len(changes) + 1:
        raise ConfigError(f"{name}={list(values)} must be one number more than {changes_name}={list(changes)}")


def stage(changes: Sequence[float], step: int, total: int) -> int:
    """Return how many changes lie before a step, counted from 1, of ``total``."""
    return sum(step > round(change * total) for change in changes)
