"""The cells of one block of a table, for readers and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from dstrun.allocation.budget import percent
from dstrun.report.compare import Block, Key, Layout, Row, really
from dstrun.report.format import Cited, Column, Mean
from dstrun.report.load import EMERGES, Run
from dstrun.report.published import Footnote, Published, Reference
from dstrun.report.table import statistics
from dstrun.report.table.measure import Measure, References

UNFINISHED = "†"
UNMET = "‡"
"""The mark of a cell whose runs have another sparsity than was asked for."""
CITED = (
    "published", "published_std", "published_difference", "published_within", "published_training",
    "published_differs", "published_unknown", "source",
)  # fmt: skip
"""What programs are told of a published number."""


@dataclass(frozen=True)
class Options:
    """How a table is made.

    Attributes:
        rows, columns, values: fields as typed, with commas; those of the preset where None.
        interval: show 95 % confidence intervals in place of standard deviations.
        significant: print in bold all that is not significantly worse than the best.
        against: the method whose difference stands in brackets behind every accuracy; none where empty.
        published: the published numbers to set beside ours.
        digits: decimals of accuracies for readers.
    """

    rows: str | None = None
    columns: str | None = None
    values: str | None = None
    interval: bool = False
    significant: bool = False
    against: str = ""
    published: Published | None = None
    digits: int = 1


@dataclass
class Part:
    """One block of a table: ``lines`` for readers, by the keys of ``columns()``, and ``cells`` for programs.

    Args:
        block, layout, values, options: what is shown, and how.
        footnotes: marks of the table's footnotes about published numbers; more are added.
        signs: those of published numbers of other trainings; more are added.
    """

    block: Block
    layout: Layout
    values: Sequence[Measure]
    options: Options
    footnotes: dict[Footnote, str]
    signs: set[str]

    def __post_init__(self) -> None:
        self.cells: list[dict[str, Any]] = []
        self.shown = sorted(set().union(*(row.columns for row in self.block.rows)), key=self.layout.column_rank)
        labels = {value.over for value in self.values} | {self.options.against}
        self.references = {label: References(self.block, label) for label in labels}
        self.cited = self._cite()
        self.lines = [self._head(row) for row in self.block.rows]
        for at, value in enumerate(self.values):
            for column in self.shown:
                cells = {
                    i: self._cell(row, column, value) for i, row in enumerate(self.block.rows) if column in row.columns
                }
                if value.accuracy:
                    for i in self._best(column, value, {i: cell[0] for i, cell in cells.items()}):
                        cells[i] = (replace(cells[i][0], best=True), *cells[i][1:])
                for i, (shown, raw) in cells.items():
                    self.lines[i][f"{column}{at}"] = shown
                    self._published(self.lines[i], raw, self.block.rows[i], column, at)
                    self.cells.append(raw)

    def _cell(self, row: Row, column: Key, value: Measure) -> tuple[Any, dict[str, Any]]:
        """Return a cell for readers, and for programs."""
        runs, unfinished = row.cells.get(column, []), row.unfinished.get(column, [])
        reference = self.references[value.over].of(runs[0]) if runs and value.over else None
        mean, deviation = value.summary(runs, reference) if runs else (None, None)
        n = len(runs)
        interval = None if deviation is None or not self.options.interval else statistics.half_width(deviation, n)
        against = self.references[self.options.against].of(runs[0]) if runs and value.accuracy else None
        theirs = value.of(against) if against and row.label != self.options.against else []
        difference = mean - fmean(theirs) if theirs and mean is not None else None
        sparsity = self._sparsity(row, column)
        real = fmean(run.realised for run in runs) if runs else None
        of = max(self.block.most, n + len(unfinished))
        marks = (UNFINISHED if unfinished else "") + ("" if all(run.met for run in runs) else UNMET)
        spread = interval if self.options.interval else deviation
        shown: Any = value.json(mean)
        if value.kind == "mean":
            shown = Mean(mean, spread, n, of, False, marks, self._at(column, runs), difference)
        raw = {key: getattr(self.block, key) for key in ("model", "dataset", "split") if getattr(self.block, key)}
        raw |= self._named(row)
        raw |= {f.name: v for f, v in zip(self.layout.columns, column, strict=True)}
        if "sparsity" in raw:
            raw["sparsity"] = sparsity
            raw["realised"] = real
        raw |= {"backend": runs[0].get("choices.backend") if runs else None, "value": value.name}
        raw |= {"mean": value.json(mean), "std": deviation, "n": n, "of": of}
        raw |= {"interval": interval} if self.options.interval else {}
        raw |= {"difference": difference} if self.options.against else {}
        raw |= {"seeds": [run.seed for run in runs], "runs": [run.id for run in runs]}
        return shown, raw | {"unfinished": [run.id for run in unfinished]}

    def _at(self, column: Key, runs: Sequence[Run]) -> str | None:
        """Format the sparsity of a cell in percent, where neither its column nor its row's name has the real one."""
        if not runs:
            return None
        real = fmean(run.realised for run in runs)
        if self.layout.emerges((), column):
            return f"{100 * real:.1f}"
        named = any(f.key == "sparsity" for f in self.layout.rows)
        return None if named or all(run.met for run in runs) else percent(real)

    def _sparsity(self, row: Row, column: Key) -> float | None:
        """Return the sparsity of a cell, where rows or columns have it; the mean over seeds where training found it."""
        for f, value in zip(self.layout.fields, (*row.values, *column), strict=True):
            if f.key == "sparsity":
                cell = row.cells.get(column, [])
                return fmean(run.realised for run in cell) if value == EMERGES and cell else value
        return None

    def _best(self, column: Key, value: Measure, shown: dict[int, Mean]) -> list[int]:
        """Choose the cells of a column that are bold: the best as shown, dense apart, where two or more compete.

        Rows that differ in a setting they stand for, as the sparsity, do not; nor does what has another sparsity than
        was asked for.
        """
        rivals = {
            str(i): i
            for i, mean in shown.items()
            if mean.mean is not None and mean.at is None and self.block.rows[i].label != "dense"
            and all(run.met for run in self.block.rows[i].cells[column])
            and not self.layout.emerges(self.block.rows[i].values)
        }  # fmt: skip
        groups: dict[Key, dict[str, int]] = {}
        settings = [place for place, f in enumerate(self.layout.rows) if f.setting]
        for name, i in rivals.items():
            values = self.block.rows[i].values
            groups.setdefault(tuple(values[place] for place in settings), {})[name] = i
        return [i for group in groups.values() if len(group) > 1 for i in self._best_of(group, column, value, shown)]

    def _best_of(self, rivals: dict[str, int], column: Key, value: Measure, shown: dict[int, Mean]) -> list[int]:
        if self.options.significant:
            by_seed = {
                name: {run.seed: float(value.field.of(run)) for run in self.block.rows[i].cells[column]}
                for name, i in rivals.items()
            }
            return [rivals[name] for name in statistics.not_worse(by_seed)]
        rounded = {i: round(shown[i].mean or 0.0, self.options.digits) for i in rivals.values()}
        return [i for i in rounded if rounded[i] == max(rounded.values())]

    def _cite(self) -> dict[tuple[int, Key, int], Reference]:
        """Find what was published, by row, column and value."""
        if self.options.published is None:
            return {}
        return {
            (i, column, at): references[0]
            for i, row in enumerate(self.block.rows)
            for column, cell in row.cells.items()
            for at, value in enumerate(self.values)
            if not value.over and (references := self.options.published.find(cell[0], value.field.key))
        }

    def _published(self, line: dict[str, Any], raw: dict[str, Any], row: Row, column: Key, at: int) -> None:
        """Set a published number, how far ours is above it, and whether our interval contains it, beside a cell.

        The last two are said only where all of the training is known and the same: else they would be told of both.
        """
        if self.options.published is None:
            return
        found = self.cited.get((self.block.rows.index(row), column, at))
        if found is None or found.value is None:
            raw |= dict.fromkeys(CITED)
            return
        run, mean = row.cells[column][0], raw["mean"]
        training = found.training(run)
        apart = None if training.sign or mean is None else mean - found.value
        interval = raw.get("interval")
        within = None if apart is None or interval is None else abs(apart) <= interval
        said = (training.word, ", ".join(training.differs), ", ".join(training.open))
        raw |= dict(zip(CITED, (found.value, found.std, apart, within, *said, found.cite), strict=True))
        mark = self.footnotes.setdefault(found.footnote(run), _letters(len(self.footnotes)))
        self.signs.add(training.sign)
        line |= {f"{column}{at}p": Cited(found.value, mark, training.sign), f"{column}{at}d": apart}
        line[f"{column}{at}w"] = None if within is None else "yes" if within else "no"

    def _named(self, row: Row) -> dict[str, Any]:
        """Return the values of a row's fields by name; what else sets it apart stands with the last of the choices."""
        named = dict(zip((f.name for f in self.layout.rows), row.values, strict=True))
        kinds = [f for f in self.layout.rows if not f.setting]
        if row.suffix and kinds:
            named[kinds[-1].name] = kinds[-1].text(named[kinds[-1].name]) + row.suffix
        elif row.suffix:
            named["apart"] = row.suffix.strip(" ()")
        return named

    def _head(self, row: Row) -> dict[str, Any]:
        """Name a row for readers: what sets it apart is a number if it is long."""
        named = self._named(replace(row, suffix=row.brief.removeprefix(row.name.removesuffix(row.suffix))))
        texts = {f.name: f.text(named[f.name]) for f in self.layout.rows} | {"apart": named.get("apart")}
        if self.layout.emerges(row.values):
            texts["sparsity"] = f"{100 * fmean(run.realised for run in row.runs):.1f}% (emerged)"
        elif "sparsity" in texts and not all(run.met for run in row.runs):
            texts["sparsity"] = f"{texts['sparsity']}{UNMET}{really(row.runs)}"
        return texts

    def columns(self) -> list[Column]:
        """Return the columns of the printed table."""
        heads = [Column(f.name, head=True) for f in self.layout.rows]
        if not any(not f.setting for f in self.layout.rows) and any(row.suffix for row in self.block.rows):
            heads.append(Column("apart", " ", head=True))
        made = []
        for column in self.shown:
            texts = tuple(f.text(v) for f, v in zip(self.layout.columns, column, strict=True))
            for at, value in enumerate(self.values):
                key, cited = f"{column}{at}", any(c[1:] == (column, at) for c in self.cited)
                digits = self.options.digits if value.accuracy else 2
                alone = len(self.values) == 1 and not cited
                if len(self.values) > 1 and all(line.get(key) is None for line in self.lines):
                    continue  # no run has it
                if texts and alone:
                    made.append(Column(key, texts[-1], value.kind, digits, above=texts[:-1]))
                    continue
                title = value.title if len(self.values) > 1 or not texts else "ours"
                made.append(Column(key, title, value.kind, digits, above=texts))
                if cited:
                    made.append(Column(f"{key}p", "published", "number", digits, above=texts))
                    if any(line.get(f"{key}d") is not None for line in self.lines):
                        made.append(Column(f"{key}d", "difference", "signed", digits, above=texts))
                    if any(line.get(f"{key}w") is not None for line in self.lines):
                        made.append(Column(f"{key}w", "in interval", above=texts))
        return heads + made

    def runs(self) -> list[dict[str, Any]]:
        """List the runs behind the cells."""
        return [line for row in self.block.rows for line in self._runs(row)]

    def _runs(self, row: Row) -> list[dict[str, Any]]:
        block = {key: getattr(self.block, key) for key in ("model", "dataset", "split") if getattr(self.block, key)}
        named, lines = self._named(row), []
        for column in self.shown:
            place = block | named | {f.name: v for f, v in zip(self.layout.columns, column, strict=True)}
            for run in [*row.cells.get(column, []), *row.unfinished.get(column, [])]:
                shown = {value.name: value.field.of(run) for value in self.values if not value.over}
                where = {"state": run.state, "commit": run.get("code.git_commit"), "run": str(run.folder)}
                lines.append(place | {"seed": run.get("seed")} | shown | where)
        return lines


def _letters(place: int) -> str:
    """Number footnotes: a, b, ..., z, aa, ab."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)
