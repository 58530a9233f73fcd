"""What the memory of training is made of, by part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from dstrun.report.compare import really
from dstrun.report.figure.series import by_backend, level
from dstrun.report.load import Run, number

PARTS = {
    "model": ("#0072b2", ""),
    "optimizer": ("#ffa90e", "////"),
    "activation": ("#94a4a2", ""),
    "index": ("#bd1f01", "...."),
    "method": ("#92dadd", ""),
    "transient": ("#832db6", "\\\\\\\\"),
}
"""Dark and light in turns, so that neighbors differ in greyscale too."""
MEANING = (
    "model (parameters and buffers), optimizer (gradients and state), activation (saved for backward), index "
    "(positions and masks), method (what it keeps between steps), transient (the rest of the peak); mean over seeds"
)


class Split(NamedTuple):
    """The memory of one row at one sparsity: means over seeds, in bytes."""

    name: str
    parts: dict[str, float]
    peak: float
    seeds: int


def splits(runs: Iterable[Run]) -> dict[str, list[Split]]:
    """Split the memory of finished runs by part: rows at their sparsities, by the title of their panel."""
    measured = [run for run in runs if number(run.get("memory.peak_bytes")) and number(run.get("memory.model_bytes"))]
    return {
        text: [_split(row.name, s, row.cells[s]) for _, row in rows for s in sorted(row.cells)]
        for text, rows in by_backend(measured).items()
    }


def _split(name: str, sparsity: float, cell: Sequence[Run]) -> Split:
    parts = {part: fmean(_bytes(run, part) for run in cell) for part in PARTS}
    peak = fmean(run.get("memory.peak_bytes") for run in cell)
    return Split(f"{name}, {level(sparsity)}{really(cell)}" if sparsity else name, parts, peak, len(cell))


def _bytes(run: Run, part: str) -> float:
    """Return what a part holds when most is held; records of older versions have the most that it ever holds."""
    phases = run.get("memory.at_peak")
    if not isinstance(phases, dict) or not phases:
        return number(run.get(f"memory.{part}_bytes")) or 0
    fullest = max(phases.values(), key=lambda sizes: sum(sizes.values()))
    return fullest.get(part, 0)


def looks() -> dict[str, dict[str, Any]]:
    """Return the color and hatching of every part; hatches and borders are of the color of the paper."""
    import matplotlib as mpl

    paper = mpl.rcParams["axes.facecolor"]
    return {
        part: {"facecolor": color, "hatch": hatch, "edgecolor": paper, "linewidth": 0.4}
        for part, (color, hatch) in PARTS.items()
    }
