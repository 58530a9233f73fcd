"""The description of a kind of figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from dstrun.report.load import Run
from dstrun.report.names import keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dstrun.report.figure.asked import Asked


@dataclass(frozen=True)
class Preset:
    """A kind of figure: ``draw`` returns None where no runs are for it, ``caption`` says what is shown.

    ``draw`` raises ConfigError where the runs are too many for one figure. ``needs`` names what must be there, as in
    "no ... below results". Figures stand on the page in the order of their ``place``, without one at its end.
    """

    draw: Callable[[Sequence[Run]], Figure | None]
    caption: str
    needs: str = "finished run"
    place: float = inf


def caption(preset: Preset, figure: Figure, asked: Asked | None = None) -> str:
    """Return the caption of a figure: what it shows, how many seeds, and the keys of the names within."""
    said = f"{preset.caption.rstrip('.')}; {note}." if (note := getattr(figure, "note", "")) else preset.caption
    named = keys(list(getattr(figure, "keys", ())), asked.names if asked else None)
    return f"{said}\nkeys: {named}" if named else said
