"""The memory of training by part: pies, as the literature has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.split import MEANING, PARTS, looks, splits
from dstrun.report.format import in_bytes
from dstrun.report.load import Run
from dstrun.report.style import MOST
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = f"Memory of training by part: {MEANING}. Below each pie is its measured peak."
LEAST = 0.06
"""Of a pie: smaller pieces have no room for their share."""


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw a pie a method, sparsity and backend, of equal sizes."""
    found = [(text, bar) for text, bars in splits(runs).items() for bar in bars]
    if not found:
        return None
    if len(found) > MOST:
        raise ConfigError(
            f"{len(found)} pies are more than fit into a figure ({MOST}): choose some, by where=, or plot memory_split"
        )
    figure, axes = grid(len(found), columns=4, height=1.75)
    alone = len({text for text, _ in found}) == 1
    faces = looks()
    for axis, (text, bar) in zip(axes, found, strict=True):
        pieces = {part: size for part, size in bar.parts.items() if size > 0}
        total = sum(pieces.values())
        wedges, _ = axis.pie(
            list(pieces.values()), startangle=90, counterclock=False, labeldistance=1.12,
            labels=[f"{100 * size / total:.0f}%" if size > LEAST * total else "" for size in pieces.values()],
            textprops={"fontsize": 6.5},
        )  # fmt: skip
        for part, wedge in zip(pieces, wedges, strict=True):
            wedge.set(**faces[part], label=part)
        axis.set_xlabel(in_bytes(bar.peak))
        title(axis, bar.name if alone else f"{text}: {bar.name}", 4)
    finish(figure, list(PARTS), [bar.seeds for _, bar in found])
    return figure


PRESET = Preset(draw, CAPTION, "finished run with measured memory", place=120)
