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
    "(indices and masks), method (state it keeps between steps), other (the rest of the peak); they sum to it, mean "
    "over seeds. Where a record has only the maximum of each part, the excess over the peak is subtracted "
    "from the activations, which are freed during the backward pass"
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
    held = [_bytes(run) for run in cell]
    parts = {part: fmean(sizes[part] for sizes in held) for part in PARTS}
    peak = fmean(run.get("memory.peak_bytes") for run in cell)
    return Split(f"{name}, {level(sparsity)}{really(cell)}" if sparsity else name, parts, peak, len(cell))


def _bytes(run: Run) -> dict[str, float]:
    """Return what each part holds when most is held, which sums to the peak.

    Records of older versions have the most that each part ever holds, not all at once: activations are released while
    gradients come, so that the excess is theirs.
    """
    peak = number(run.get("memory.peak_bytes")) or 0
    phases = run.get("memory.at_peak")
    if isinstance(phases, dict) and phases:
        fullest = max(phases.values(), key=lambda sizes: sum(sizes.values()))
        held = {part: number(fullest.get(part)) or 0 for part in PARTS}
    else:
        held = {part: number(run.get(f"memory.{part}_bytes")) or 0 for part in PARTS}
    excess = sum(held.values()) - peak
    if excess < 0:
        held["transient"] -= excess
    for part in ("activation", "transient", "optimizer"):
        less = min(max(excess, 0), held[part])
        held[part] -= less
        excess -= less
    return held


def looks() -> dict[str, dict[str, Any]]:
    """Return the color and hatching of every part; hatches and borders are of the color of the paper."""
    import matplotlib as mpl

    paper = mpl.rcParams["axes.facecolor"]
    return {
        part: {"facecolor": color, "hatch": hatch, "edgecolor": paper, "linewidth": 0.4}
        for part, (color, hatch) in PARTS.items()
    }
