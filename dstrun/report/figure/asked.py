"""Options of every figure: its title, names, width, limits and panels side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from dstrun.report.names import spelled
from dstrun.system.trouble import ConfigError

LEAST_INCHES, MOST_INCHES = 1.5, 30.0
"""How wide a figure may be asked to be."""
COLUMNS = range(1, 9)
"""How many panels may stand side by side."""


@dataclass(frozen=True)
class Asked:
    """Settings of one drawing; what is None or empty is left to the figure.

    Attributes:
        title: of the figure.
        names: of rows, methods, networks and data, by their keys; they win over ``report.names``.
        width: in inches.
        ylim: of the vertical axes.
        columns: panels side by side.
    """

    title: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    width: float | None = None
    ylim: tuple[float, float] | None = None
    columns: int | None = None

    def __post_init__(self) -> None:
        """Check what is asked.

        Raises:
            ConfigError: nothing can be drawn so.
        """
        if self.width is not None and not LEAST_INCHES <= self.width <= MOST_INCHES:
            raise ConfigError(f"--width {self.width:g} must be {LEAST_INCHES:g} to {MOST_INCHES:g} inches")
        if self.ylim is not None and not (len(self.ylim) == 2 and self.ylim[0] < self.ylim[1]):
            said = ",".join(f"{limit:g}" for limit in self.ylim)
            raise ConfigError(f"--ylim {said} must be two numbers, the lower first, such as 40,60")
        if self.columns is not None and self.columns not in COLUMNS:
            raise ConfigError(f"--columns {self.columns} must be {COLUMNS[0]} to {COLUMNS[-1]}")


_NOW: ContextVar[Asked] = ContextVar("asked", default=Asked())  # noqa: B039


@contextmanager
def asking(asked: Asked) -> Iterator[None]:
    """Draw as asked for, within."""
    token = _NOW.set(asked)
    try:
        yield
    finally:
        _NOW.reset(token)


def asked() -> Asked:
    """Return what is asked of the figure that is being drawn."""
    return _NOW.get()


def name(text: str) -> str:
    """Return what a reader is shown for a row, a panel or a tick."""
    return spelled(text, _NOW.get().names)
