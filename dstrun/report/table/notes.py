"""The footnotes of a table: what is missing, and what every number is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from dstrun.layer.backend import described
from dstrun.report.compare import Block, Layout, Row, unmet
from dstrun.report.load import Run
from dstrun.report.published import Footnote
from dstrun.report.table.cells import UNFINISHED, UNMET, Options
from dstrun.report.table.measure import CONVENTIONS, Measure, unlike
from dstrun.system.wording import few

STANDARD = "mean ± sample standard deviation over seeds (n) at the final epoch, not the best epoch on test"
INTERVAL = (
    "mean ± half the 95 % confidence interval (Student's t) over seeds (n) at the final epoch, not the best "
    "epoch on test"
)
EMERGED = "emerges: no target sparsity, training determines the one in the cell (mean over seeds), so none is bold"
REAL = "sparsity differs from the target (the real one in brackets), so neither bold nor compared for it"
SIGNIFICANT = "bold: the best mean of a column, and those not significantly below (t-test paired by seed, Holm, 5 %)"
SIGNS = {
    "≠": "≠: published after another training than ours, in the settings listed; no difference is given",
    "?": "?: agrees in all that is known of the published training; not everything is known, so no difference is given",
}  # fmt: skip
"""What a sign before a published number means."""

APART = 2
"""So many footnotes of published numbers stand each by itself."""

LIKE = (
    "compared with the run of the same model, data, epochs, batch size and precision whose other settings are "
    "closest; - where there is none, or several"
)


def notes(
    found: Sequence[Block],
    lost: Sequence[Run],
    layout: Layout,
    values: Sequence[Measure],
    options: Options,
    footnotes: dict[Footnote, str],
    signs: Collection[str],
) -> list[str]:
    """Write the footnotes: what is missing first, then what every number is."""
    rows = [row for block in found for row in block.rows]
    runs = [run for row in rows for run in row.runs]
    notes = list(dict.fromkeys(line for block in found for line in block.legend))
    notes += published(footnotes)
    notes += [said for sign, said in SIGNS.items() if sign in signs]
    if any(0 < len(cell) < block.most for block in found for row in block.rows for cell in row.cells.values()):
        notes.append("(n of N): n seeds have finished, of N that were started or that another cell of the block has")
    waiting = {run.id: run for row in rows for cell in row.unfinished.values() for run in cell}
    if waiting:
        notes.append(f"{UNFINISHED} not finished: {_listed(waiting.values())}")
    if lost:
        notes.append(f"not finished and in no cell: {_listed(lost)}")
    repeated = [run for row in rows for run in row.repeated]
    if repeated:
        notes.append(f"left out, as they duplicate configuration and seed of another run: {_listed(repeated)}")
    for block in found:
        if apart := unlike(block.rows, layout):
            notes.append(f"{block.title}: training differs: {'; '.join(apart)}")
    if not found:
        return notes
    if any(layout.emerges(row.values, column) for row in rows for column in row.columns):
        notes.append(EMERGED)
    if real := unmet((row.brief, cell) for row in rows for cell in row.cells.values()):
        notes.append(f"{UNMET} {REAL}: {', '.join(real)}")
    if any(value.accuracy for value in values):
        splits = sorted({str(run.get("accuracy.split")) for run in runs})
        what = " and ".join(dict.fromkeys(value.title for value in values if value.accuracy))
        spread = INTERVAL if options.interval else STANDARD
        notes.append(f"{what} accuracy in percent on the {' and '.join(splits)} split: {spread}")
        notes += [SIGNIFICANT] if options.significant else []
    held = [f"{value.title} (ratio of means)" for value in values if value.over]
    held += [f"[difference of means to {options.against}]"] if options.against else []
    if held:
        notes.append(f"{', '.join(held)}: {LIKE}")
    notes += _conventions(values, runs)
    notes += _apart(values, rows)
    notes.append(_backends(rows))
    return notes


def published(footnotes: Mapping[Footnote, str]) -> list[str]:
    """Write the footnotes of published numbers: a few each by itself, of more each source and each difference once."""
    if len(footnotes) <= APART:
        return [f"{mark}: {said}" for said, mark in footnotes.items()]
    sources: dict[str, list[str]] = {}
    differs: dict[str, dict[str, list[str]]] = {}
    unknown: dict[str, list[str]] = {}
    places = {mark: place for place, mark in enumerate(footnotes.values())}
    for said, mark in footnotes.items():
        sources.setdefault("; ".join(filter(None, (said.cite, said.note))), []).append(mark)
        for what in said.training.differs:
            theirs, _, ours = what.removesuffix(")").replace("(ours ", "(").rpartition(" (")
            differs.setdefault(theirs, {}).setdefault(ours, []).append(mark)
        for what in said.training.open:
            unknown.setdefault(what, []).append(mark)
    notes = [f"{_marks(marks, places)}: {source}" for source, marks in sources.items()]
    if differs:
        parts = (
            f"{theirs} (ours {'; '.join(f'{value}{_where(marks, places)}' for value, marks in ours.items())})"
            for theirs, ours in differs.items()
        )
        notes.append(f"published, and ours where it differs: {', '.join(parts)}")
    if unknown:
        parts = (f"{what}{_where(marks, places)}" for what, marks in unknown.items())
        notes.append(f"not known: {', '.join(parts)}")
    return notes


def _where(marks: Sequence[str], places: Mapping[str, int]) -> str:
    """Return in which footnotes something is said; nothing where it is in all."""
    return "" if len(marks) == len(places) else f" in {_marks(marks, places)}"


def _marks(marks: Iterable[str], places: Mapping[str, int]) -> str:
    """Write marks, three or more that follow each other as ``a-c``."""
    ranges: list[list[str]] = []
    for mark in sorted(marks, key=places.__getitem__):
        if ranges and places[mark] == places[ranges[-1][-1]] + 1:
            ranges[-1].append(mark)
        else:
            ranges.append([mark])
    return ", ".join(f"{found[0]}-{found[-1]}" if len(found) > 2 else ", ".join(found) for found in ranges)


def _conventions(values: Sequence[Measure], runs: Sequence[Run]) -> list[str]:
    """Return how the numbers came about that are no accuracies."""
    notes = ["other numbers are means over the same seeds"] if any(not value.accuracy for value in values) else []
    for group, key in CONVENTIONS.items():
        if any(value.group == group for value in values):
            said = sorted({str(run.get(key)) for run in runs if run.get(key) is not None})
            notes += [f"{group}: {'; '.join(said)}"] if said else []
    return notes


def _apart(values: Sequence[Measure], rows: Sequence[Row]) -> list[str]:
    """Return which cells show no number, as their runs were measured in several ways."""
    notes = []
    for group in dict.fromkeys(value.group for value in values):
        value = next(value for value in values if value.group == group)
        cells = [cell for row in rows for cell in row.cells.values() if len(value.ways(cell)) > 1]
        if cells:
            ways = sorted({way for cell in cells for way in value.ways(cell)})
            kept = " (accuracies are)" if any(value.accuracy for value in values) else ""
            notes.append(f"{group}: measured in several ways, so not averaged{kept}: {'; '.join(ways)}")
    return notes


def _listed(runs: Iterable[Run]) -> str:
    """Name the first few runs and their states, count the rest."""
    return few([f"{run.id} ({run.state})" for run in runs], 3)


def _backends(rows: Iterable[Row]) -> str:
    """Return how weights were stored, and which rows are a simulation."""
    names = {str(run.get("choices.backend")) for row in rows for run in row.runs}
    said = [described(name) for name in sorted(names)]
    return f"all rows: backend {said[0]}" if len(said) == 1 else f"backends: {', '.join(said)}"
