"""How the topology changes: connections replaced at each update, and the share that has ever been active."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from dstrun.report.compare import Row, unmet
from dstrun.report.figure.canvas import finish, grid, title
from dstrun.report.figure.preset import Preset
from dstrun.report.figure.series import by_sparsity, in_order
from dstrun.report.load import Run, rows_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Share of active connections replaced at every topology update, and share of all connections that have "
    "been active at any time so far (the in-time over-parameterization rate), over all layers; mean over "
    "seeds, with a band from the lowest to the highest. The latter only for runs whose records list the "
    "connections of each layer."
)


COLUMNS = ("step", "layer", "active", "pruned", "grown", "explored")
ROOM = 0.03
"""Below 0 and above all, of a panel's height: so that marks there are whole."""
UNKNOWN = "not known: records without layers"


class Update(NamedTuple):
    """What an update did over all layers, in percent: of the active connections, and of all (None: not known)."""

    replaced: float
    explored: float | None


WHAT = ("replaced at an update (%)", "ever active (%)")


def draw(runs: Sequence[Run]) -> Figure | None:
    """Draw two panels per model, dataset and sparsity, of the runs whose topology has moved."""
    panels, cells = [], []
    for text, rows in by_sparsity(runs):
        read = [(row, [known for run in cell if _moves(known := updates(run))]) for row, cell in rows]
        if moved := [(row, known) for row, known in read if known]:
            panels.append((text, moved))
            cells += [(row.name, cell) for (row, cell), (_, known) in zip(rows, read, strict=True) if known]
    if not panels:
        return None
    names = in_order(row for _, rows in panels for row, _ in rows)
    figure, axes = grid(2 * len(panels), rows=len(names), columns=2)
    for i, (text, rows) in enumerate(panels):
        for axis, key, what in zip(axes[2 * i :], Update._fields, WHAT, strict=False):
            for place, (row, known) in enumerate(rows):
                values = [{step: getattr(update, key) for step, update in run.items()} for run in known]
                _band(axis, row, [run for run in values if None not in run.values()], place / len(rows))
            if not axis.lines:
                axis.text(0.5, 0.5, UNKNOWN, transform=axis.transAxes, ha="center")
            axis.set_ylabel(what)
            axis.set_xlabel("step")
            top = axis.get_ylim()[1]
            axis.set_ylim(-ROOM * top, (1 + ROOM) * top)
            title(axis, text, 2)
    finish(figure, names, [len(known) for _, rows in panels for _, known in rows], unmet=unmet(cells))
    return figure


PRESET = Preset(draw, CAPTION, "finished run that replaced connections and left topology.csv", place=100)


def _moves(known: Mapping[int, Update]) -> bool:
    """Return whether connections were replaced: what only prunes has explored all, and would leave others no room."""
    return any(update.replaced for update in known.values())


def updates(run: Run) -> dict[int, Update]:
    """Sum ``topology.csv`` over layers: by step, what the update did. Empty where the file is missing or damaged.

    A connection that came counts as one replaced only where another has gone, so that pruning alone replaces none.
    """
    sizes = {layer["name"]: layer["connections"] for layer in run.get("layers", [])}
    sums: dict[int, list[float]] = {}
    try:
        with StringIO(rows_text(run, "topology.csv")) as file:
            lines = csv.reader(file)
            at = {key: place for place, key in enumerate(next(lines, []))}
            step, layer, active, pruned, grown, explored = (at[key] for key in COLUMNS)
            for row in lines:
                size = sizes.get(row[layer], 0)
                of = sums.setdefault(int(row[step]), [0, 0, 0, 0, 0])
                of[0] += int(row[active])
                of[1] += int(row[pruned])
                of[2] += int(row[grown])
                of[3] += size
                of[4] += size * float(row[explored])
    except (ValueError, LookupError, csv.Error):
        return {}
    return {step: _update(*of) for step, of in sorted(sums.items())}


def _update(active: float, pruned: float, grown: float, size: float, explored: float) -> Update:
    return Update(100 * min(pruned, grown) / max(active, 1), 100 * explored / size if size else None)


def _band(axis: Axes, row: Row, runs: Sequence[Mapping[int, float]], shift: float) -> None:
    """Draw the mean over seeds at the steps that all have, and the range."""
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    if not steps:
        return
    color, marker, line = row.look
    columns = [[run[step] for run in runs] for step in steps]
    every = max(1, len(steps) // 6)
    axis.fill_between(steps, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.2, linewidth=0)
    axis.plot(
        steps, list(map(fmean, columns)), color=color, marker=marker, linestyle=line,
        label=row.name, markevery=(int(shift * every), every),
    )  # fmt: skip
