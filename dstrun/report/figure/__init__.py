"""Figures of a paper from finished runs: every seed visible, one color and marker per method everywhere.

A preset is drawn within ``sheet``, from all runs there are: it picks those that it is for, and keeps apart what differs
in more than its axes and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrun.report.figure import (
    allocation,
    curves,
    flops,
    improvement,
    layers,
    memory,
    sparsity,
    split,
    subset,
    timeline,
    topology,
    width,
)  # fmt: skip
from dstrun.report.figure.canvas import save, sheet
from dstrun.report.load import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PRESETS", "Preset", "save", "sheet"]


@dataclass(frozen=True)
class Preset:
    """A kind of figure: ``draw`` gives None where no runs are for it, ``caption`` says what is shown.

    ``draw`` raises ConfigError where the runs are too many for one figure. ``needs`` names what must be there, as in
    "no ... below results".
    """

    draw: Callable[[Sequence[Run]], Figure | None]
    caption: str
    needs: str = "finished run"


PRESETS = {
    "curves": Preset(curves.draw, curves.CAPTION, "finished run with metrics.csv"),
    "sparsity": Preset(sparsity.draw, sparsity.CAPTION),
    "flops": Preset(flops.draw, flops.CAPTION),
    "memory": Preset(memory.draw, memory.CAPTION, "finished run with measured memory"),
    "subset": Preset(subset.draw, subset.CAPTION, "runs of GSE that differ in grow.gamma alone"),
    "improvement": Preset(improvement.draw, improvement.CAPTION, "runs of GSE and RigL that differ in growth alone"),
    "allocation": Preset(allocation.draw, allocation.CAPTION, "runs that differ in their allocation alone"),
    "width": Preset(width.draw, width.CAPTION, "runs of several widths with as many active connections"),
    "layers": Preset(layers.draw, layers.CAPTION, "finished sparse run with layers in its record"),
    "topology": Preset(topology.draw, topology.CAPTION, "finished run that replaced connections and left topology.csv"),
    "memory_split": Preset(split.draw_bars, split.BARS, "finished run with measured memory"),
    "memory_pies": Preset(split.draw_pies, split.PIES, "finished run with measured memory"),
    "memory_timeline": Preset(timeline.draw, timeline.CAPTION, "finished run that left memory.csv"),
}
