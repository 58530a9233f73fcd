"""The contract of every open option: a frozen, keyword-only dataclass that checks itself.

An option of a config group is a class whose fields are the keys of its yaml file. Bounds stand in the annotation::

    @option
    class GSE:
        gamma: Annotated[float, Above(0)] = 1.0

A value of the wrong type or outside its bounds raises ``ConfigError``, one sentence that names the key as the user
typed it (``grow.gamma=-1``). Standard library only: an option's module imports without torch, so that a
configuration is checked whole before torch is.
"""

from __future__ import annotations

import math
import os
import types
import typing
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, dataclass_transform

from dstrun.config import hint as hints
from dstrun.config.hint import nearest as nearest
from dstrun.system.trouble import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Bound:
    """A condition on a number: ``holds(value)``, and how to say it."""

    text: str
    low: float = float("-inf")
    high: float = float("inf")
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        """Return whether the value lies inside."""
        low = value > self.low if self.low_open else value >= self.low
        high = value < self.high if self.high_open else value <= self.high
        return low and high


def Above(low: float) -> Bound:
    """Strictly greater than ``low``."""
    return Bound(f"must be above {low:g}", low=low, low_open=True)


def AtLeast(low: float) -> Bound:
    """Greater than or equal to ``low``."""
    return Bound(f"must be at least {low:g}", low=low)


def Within(low: float, high: float, *, low_open: bool = False, high_open: bool = False) -> Bound:
    """Between ``low`` and ``high``; an open end excludes its bound."""
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
    return Bound(f"must be in {interval}", low, high, low_open, high_open)


def OneOf(*names: str) -> tuple[str, ...]:
    """One of the named strings."""
    return names


Share = Annotated[float, Within(0, 1)]


GROUPS = (
    "model", "dataset", "method", "prune", "grow", "subset", "allocation", "schedule", "optimizer", "loss",
)  # fmt: skip
"""The open groups of the configuration."""


def group_of(cls: type) -> str:
    """Name the config group of an option class: the package its module stands in, ``grow`` of ``dstrun.grow.gse``."""
    packages = cls.__module__.split(".")[:-1]
    return next((name for name in reversed(packages) if name in GROUPS), packages[-1] if packages else cls.__name__)


def check_value(key: str, value: Any, hint: Any) -> None:
    """Check one value against its annotation.

    Raises:
        ConfigError: the value has another type or lies outside its bounds; the sentence starts with ``key=value``.
    """
    bounds: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        bounds = tuple(rest)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return
        alternatives = [a for a in typing.get_args(hint) if a is not type(None)]
        for alternative in alternatives[:-1]:
            try:
                return check_value(key, value, alternative)
            except ConfigError:
                continue
        hint = alternatives[-1]
        return check_value(key, value, hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}={value} must be a list such as [1,2]")
        for item in value:
            check_value(key, item, typing.get_args(hint)[0])
        return
    kinds = {float: "a number", int: "a whole number", bool: "true or false", str: "a name"}
    if hint not in kinds:
        return
    good = isinstance(value, int | float) and math.isfinite(value) if hint is float else isinstance(value, hint)
    if isinstance(value, bool) and hint is not bool:
        good = False
    if not good:
        raise ConfigError(f"{key}={value} must be {kinds[hint]}")
    for bound in bounds:
        if isinstance(bound, tuple) and value not in bound:
            raise ConfigError(
                f"{key}={value} is not known: choose {', '.join(bound)}{hints.value(key, str(value), bound)}"
            )
        if isinstance(bound, Bound) and not bound.holds(value):
            raise ConfigError(f"{key}={value} {bound.text}{hints.share(str(value), bound.low, bound.high)}")


def expanded(path: str) -> str:
    """Return a path with its ``~`` as the shell would have it.

    Raises:
        ConfigError: there is no such user.
    """
    found = os.path.expanduser(path)
    if path.startswith("~") and found == path:
        raise ConfigError(
            f"{path} cannot be resolved: the home folder of {path.split('/')[0]} is unknown; write ./{path} for it"
        )
    return found


@dataclass_transform(frozen_default=True, kw_only_default=True)
def option(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass whose fields are checked when it is built."""
    own_check = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            value = getattr(self, field.name)
            check_value(f"{group_of(type(self))}.{field.name}", value, hints[field.name])
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if own_check is not None:
            own_check(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)
