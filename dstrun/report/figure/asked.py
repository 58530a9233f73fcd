"""Options of every figure: its title, names, width, limits and panels side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from dstrun.report.names import spelled


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
