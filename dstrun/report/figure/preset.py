"""What a kind of figure says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from dstrun.report.load import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
