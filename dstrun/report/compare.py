"""Which runs may share a row and be averaged in one cell: those that differ in the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from dstrun.allocation.budget import percent
from dstrun.config import identity
from dstrun.report.apart import mark
from dstrun.report.fields import SHORT, Field
from dstrun.report.load import EMERGES, Run, natural
from dstrun.report.style import PLAIN, Look, order

BLOCK = (Field("model", "choices.model"), Field("dataset", "choices.dataset"), Field("split", SHORT["split"]))
"""What may be compared at all agrees in these, unless they are rows or columns themselves."""

BRIEF = 50
"""Characters that a row's name may take to show what distinguishes it."""

Key = tuple[Any, ...]
"""The values of some fields, in their order."""

Signature = tuple[tuple[str, str], ...]
"""Settings and choices with their values."""


@dataclass
class Row:
    """Runs alike in everything but the seed and the columns, by column.

    ``name`` is what a reader knows it by: its method's label, or the values of other fields, and the ``suffix`` that
    says what else sets it apart; ``apart`` has all that does, by key; ``values`` are those of the fields of rows;
    ``variant`` counts rows of one label. A figure chooses the ``look``.
    """

    label: str
    name: str
    variant: int = 0
    cells: dict[Any, list[Run]] = field(default_factory=dict)
    repeated: list[Run] = field(default_factory=list)
    unfinished: dict[Any, list[Run]] = field(default_factory=dict)
    values: Key = ()
    suffix: str = ""
    apart: dict[str, str] = field(default_factory=dict)
    signature: Signature = ()
    look: Look = PLAIN

    @property
    def columns(self) -> set[Any]:
        """Return the columns in which some run stands; of ``blocks``, the sparsities."""
        return set(self.cells) | set(self.unfinished)

    sparsities = columns

    @property
    def runs(self) -> list[Run]:
        """List the finished runs."""
        return [run for cell in self.cells.values() for run in cell]

    @property
    def brief(self) -> str:
        """Return the name for readers: where it says much, a number for what it says (``Block.legend``)."""
        return self.name if len(self.suffix) <= BRIEF else f"{self.name.removesuffix(self.suffix)} ({self.variant + 1})"

    def rank(self) -> tuple[Any, ...]:
        """Sort key of rows by method."""
        return *order(self.label), natural(self.name)


@dataclass
class Block:
    """What may be compared: one model, one dataset, one split; of these, what is a row or column itself is empty."""

    model: str
    dataset: str
    split: str
    rows: list[Row]

    @property
    def title(self) -> str:
        """Name the block for readers."""
        on = " on ".join(part for part in (self.model, self.dataset) if part)
        return f"{on} ({self.split})".strip() if self.split else on

    @property
    def legend(self) -> list[str]:
        """Return what the numbers in brief names stand for."""
        long = {row.brief: row.suffix.strip(" ()") for row in self.rows if row.brief != row.name}
        return [f"{brief}: {suffix}" for brief, suffix in long.items()]

    @property
    def sparsities(self) -> list[float]:
        """Return the sparsities of all rows, ascending; 0 is dense, ``EMERGES`` the last."""
        return sorted(set().union(*(row.sparsities for row in self.rows)))

    @property
    def most(self) -> int:
        """Count the seeds of the cell that has most."""
        return max((len(cell) for row in self.rows for cell in row.cells.values()), default=0)


@dataclass(frozen=True)
class Layout:
    """The fields that make rows and columns; what both leave open of ``BLOCK`` parts runs into blocks."""

    rows: tuple[Field, ...]
    columns: tuple[Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """Return those of rows, then those of columns."""
        return self.rows + self.columns

    @property
    def settings(self) -> set[str]:
        """Name the settings among them, in which runs of one row may differ."""
        return {f.setting for f in self.fields if f.setting}

    def apart(self, run: Run) -> Key:
        """Return what parts runs into blocks, empty where it makes rows or columns."""
        own = {f.key for f in self.fields}
        return tuple("" if f.key in own else str(f.of(run) or "unknown") for f in BLOCK)

    def emerges(self, row: Key, column: Key = ()) -> bool:
        """Return whether the sparsity among the values of rows or columns is one that training found."""
        named = [*zip(self.rows, row, strict=False), *zip(self.columns, column, strict=False)]
        return any(f.key == "sparsity" and value == EMERGES for f, value in named)

    def rank(self, row: Row) -> tuple[Any, ...]:
        """Sort key of rows: field by field; what else sets a row apart comes after the last that is no setting."""
        ranks = [f.rank(value) for f, value in zip(self.rows, row.values, strict=True)]
        last = max((i + 1 for i, f in enumerate(self.rows) if not f.setting), default=0)
        return *ranks[:last], natural(row.suffix), *ranks[last:]

    def column_rank(self, column: Key) -> tuple[Any, ...]:
        """Sort key of columns."""
        return tuple(f.rank(value) for f, value in zip(self.columns, column, strict=True))


def values(fields: Iterable[Field], run: Run) -> Key:
    """Return a run's values of fields."""
    return tuple(f.of(run) for f in fields)


def blocks(runs: Iterable[Run]) -> list[Block]:
    """Sort finished runs into blocks and rows by method, whose cells are by sparsity; others are left out."""
    method, sparsity = Field("method", "label"), Field("sparsity", "sparsity")
    found = pivot(runs, Layout((method,), (sparsity,)))
    for row in (row for block in found for row in block.rows):
        row.cells = {level: cell for (level,), cell in row.cells.items()}
    return found


def pivot(runs: Iterable[Run], layout: Layout) -> list[Block]:
    """Sort finished runs into blocks, rows and cells, which are by the values of the columns' fields.

    Runs that differ in anything else than those and the seed never share a cell: they stand in rows of their own,
    named by what differs.
    """
    found: dict[Key, list[Run]] = {}
    done = [run for run in runs if run.done]
    mark(done)
    for run in done:
        found.setdefault(layout.apart(run), []).append(run)
    keys = sorted(found, key=lambda key: [natural(part) for part in key])
    return [Block(*key, rows=sorted(_rows(found[key], layout), key=layout.rank)) for key in keys]


def _rows(runs: Iterable[Run], layout: Layout) -> Iterator[Row]:
    """Split runs by what their rows are, then by configuration, and name each part by what differs."""
    kinds = [f for f in layout.rows if not f.setting]
    families: dict[Key, dict[Key, list[Run]]] = {}
    for run in runs:
        # A choice among the columns brings settings of its own: only beside runs of the same choice do they differ.
        beside = values([f for f in layout.columns if not f.setting], run)
        families.setdefault(values(kinds, run), {}).setdefault(beside, []).append(run)
    variants: Counter[str] = Counter()
    ranked = sorted(families, key=lambda kind: [f.rank(value) for f, value in zip(kinds, kind, strict=True)])
    for kind in ranked:
        alike = _alike(families[kind].values(), layout.settings)
        usual = _usual([apart for apart, _ in alike])
        named = [(_suffix(apart, usual), number, apart, part) for (apart, number), part in alike.items()]
        for suffix, _, apart, part in sorted(named, key=lambda item: (natural(item[0]), item[1])):
            label = str(part[0].get("label"))
            said = ", ".join(f.text(value) for f, value in zip(kinds, kind, strict=True)) or label
            yield from _cells(
                part, layout, Row(label, said + suffix, variants[label], suffix=suffix, apart=dict(apart))
            )
            variants[label] += 1


def _alike(groups: Iterable[list[Run]], settings: set[str]) -> dict[tuple[Signature, int], list[Run]]:
    """Split groups by configuration; parts of several groups are one where nothing sets them apart but the group.

    The key is what sets a part apart; the number tells those apart that have none.
    """
    parted: list[list[list[Run]]] = []
    for group in groups:
        parts: dict[Signature, list[Run]] = {}
        for run in group:
            parts.setdefault(signature(run, settings), []).append(run)
        parted.append(list(parts.values()))
    keys = list(dict.fromkeys(key for found in parted for key in differing(found, settings)))
    joined: dict[tuple[Signature, int], list[Run]] = {}
    for runs_of in parted:
        same: Counter[Signature] = Counter()
        for alike in runs_of:
            apart = _apart(alike[0], keys)
            joined.setdefault((apart, same[apart]), []).extend(alike)
            same[apart] += 1
    return joined


def _cells(runs: Iterable[Run], layout: Layout, like: Row) -> Iterator[Row]:
    """Return the rows of runs that differ in the settings of rows and columns and the seed alone."""
    found: dict[Key, Row] = {}
    taken = set()
    for run in sorted(runs, key=lambda run: (run.seed, str(run.folder))):
        place, column = values(layout.rows, run), values(layout.columns, run)
        if place not in found:
            found[place] = replace(
                like, values=place, cells={}, repeated=[], unfinished={}, signature=signature(run, layout.settings)
            )
        if (place, column, run.seed) in taken:
            # The same run kept under two experiments is one observation, not two.
            found[place].repeated.append(run)
        else:
            taken.add((place, column, run.seed))
            found[place].cells.setdefault(column, []).append(run)
    yield from found.values()


def signature(run: Run, settings: Collection[str] = ("sparsity",)) -> Signature:
    """Return all that decides a result but the seed and some settings; equal for runs that may be averaged."""
    values = ((key, repr(identity.by_value(value))) for key, value in scalars(run).items() if key not in settings)
    return tuple(sorted(values))


def scalars(run: Run) -> dict[str, Any]:
    """Return all that decides a run's result but the seed, by dotted name (``identity.settings``, ``Run.apart``).

    Choices stand under ``choices.``; that of the method is left out, for a preset and the same parts chosen one by one
    are the same training.
    """
    flat = {key: value for key, value in identity.settings(run.get("config", {})).items() if key != "seed"}
    unread = identity.TOP.keys() - flat.keys() | {"method"}
    chosen = {f"choices.{key}": name for key, name in run.get("choices", {}).items() if key not in unread and name}
    return flat | run.apart | chosen


def differing(parts: Sequence[Sequence[Run]], but: Collection[str] = ("sparsity",)) -> list[str]:
    """Name the choices in which parts of a label differ, and the settings that differ beyond what those bring along.

    A chosen option brings the settings of its own group; a method's preset brings those of any group, so that beside
    two presets only top-level settings are named. A setting that only one of two parts reads is named only where
    nothing else is: another setting brings it. The runs of a part are alike but for the way the method was named; the
    settings ``but`` are not looked at.
    """
    choices, settings, lacking = [], set(), set()
    for one, other in combinations(parts, 2):
        first, second = one[0].get("choices", {}), other[0].get("choices", {})
        apart = [key for key in first | second if key != "method" and first.get(key) != second.get(key)]
        presets = not _methods(one) & _methods(other)
        if presets:
            apart.insert(0, "method")
        choices += [key for key in apart if key not in choices]
        a, b = scalars(one[0]), scalars(other[0])
        differ = {
            key
            for key in a.keys() | b.keys()
            if a.get(key) != b.get(key)
            and key.split(".")[0] not in (*apart, "choices")
            and not (presets and "." in key)
            and key not in but
        }
        both = differ & a.keys() & b.keys()
        settings |= both
        lacking |= set() if both or apart else differ
    return choices + sorted(settings | lacking)


def really(runs: Sequence[Run]) -> str:
    """Format the sparsity of runs, the mean, where another was asked for: ``" (61.2%)"``; else nothing."""
    return "" if all(run.met for run in runs) else f" ({percent(fmean(run.realised for run in runs))}%)"


def unmet(cells: Iterable[tuple[str, Sequence[Run]]]) -> list[str]:
    """Return which cells, given with the names of their rows, have another sparsity than was asked for, and which.

    Of each name and sparsity once: ``dsr at 90% (61.2%)``.
    """
    found: dict[tuple[str, float], list[Run]] = {}
    for name, cell in cells:
        for run in cell:
            if not run.met:
                found.setdefault((name, run.sparsity), []).append(run)
    return [f"{name} at {100 * asked:g}%{really(runs)}" for (name, asked), runs in found.items()]


def _methods(part: Sequence[Run]) -> set[Any]:
    return {run.get("choices.method") for run in part}


def _apart(run: Run, keys: Sequence[str]) -> Signature:
    """Return the values of the keys; a key the run does not have is left out."""
    values = scalars(run) | run.get("choices", {})
    return tuple((key, str(values[key])) for key in keys if values.get(key) is not None)


def _usual(parts: Sequence[Signature]) -> Signature:
    """Return the defaults that names need not say: of top-level settings, where more than two of these differ."""
    counts = Counter(key for part in parts for key, _ in part if key in identity.TOP)
    usual = [(key, str(identity.TOP[key])) for key, count in counts.items() if count == len(parts)]
    return tuple(usual) if len(counts) > 2 else ()


def _suffix(apart: Signature, usual: Signature) -> str:
    """Format what sets a row apart, without the usual, ``" (epochs=4)"``."""
    said = [f"{key}={value}" for key, value in apart if (key, value) not in usual]
    return f" ({', '.join(said)})" if said else ""
