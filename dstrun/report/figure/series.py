"""The rows of a figure's panels, by what their axes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dstrun.report.compare import Block, Layout, Row, Signature, blocks, pivot, signature
from dstrun.report.fields import Field, typed
from dstrun.report.load import Run, natural
from dstrun.report.style import MOST, looks
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import few

METHOD, SPARSITY = Field("method", "label"), Field("sparsity", "sparsity")


class Panel(NamedTuple):
    """What shares a panel; ``detail`` is what a figure keeps apart besides."""

    model: str
    dataset: str
    split: str
    detail: str

    @property
    def title(self) -> str:
        """Title the panel, the split named where it is not the test split that everyone assumes."""
        split = "" if self.split == "test" else f" ({self.split})"
        return f"{self.model}, {self.dataset}{split}" + (f", {self.detail}" if self.detail else "")


def titled(block: Block, detail: str = "") -> str:
    """Title a panel of a block."""
    return Panel(block.model, block.dataset, block.split, detail).title


def level(sparsity: float) -> str:
    """Format a sparsity."""
    return SPARSITY.text(sparsity)


def ticks(levels: Sequence[float]) -> list[str]:
    """Label sparsities along an axis in percent."""
    return [level(sparsity).removesuffix("%") for sparsity in levels]


def panels(
    runs: Iterable[Run], columns: Sequence[Field], detail: Callable[[Run], str] | None = None
) -> dict[Panel, list[Row]]:
    """Sort finished runs into panels and rows by method, whose cells are by columns; of one column, by its value.

    Args:
        runs: of any configuration; those that have no value for a column are left out.
        columns: what may differ within a row besides the seed.
        detail: what keeps panels apart besides model, dataset and split; the sparsity if it is not given.
    """
    parts: dict[str, list[Run]] = {}
    for run in runs:
        if run.done and all(column.of(run) is not None for column in columns):
            parts.setdefault(detail(run) if detail else level(run.sparsity), []).append(run)
    found = {
        Panel(block.model, block.dataset, block.split, text): block.rows
        for text, part in parts.items()
        for block in pivot(part, Layout((METHOD,), tuple(columns)))
    }
    for row in (row for rows in found.values() for row in rows):
        if len(columns) == 1:
            row.cells = {value: cell for (value,), cell in row.cells.items()}
    return {panel: found[panel] for panel in sorted(found, key=lambda panel: [natural(part) for part in panel])}


def by_sparsity(runs: Iterable[Run]) -> Iterator[tuple[str, list[tuple[Row, list[Run]]]]]:
    """Return a panel per model, dataset, split and sparsity above 0: its title, its rows, and their runs there."""
    for block in blocks(runs):
        for sparsity in block.sparsities:
            rows = [(row, row.cells[sparsity]) for row in block.rows if row.cells.get(sparsity)]
            if sparsity and rows:
                yield titled(block, level(sparsity)), rows


def places(rows: Iterable[Row]) -> list[float]:
    """Return the places along x that some row has."""
    return sorted(set().union(*(row.cells for row in rows)))


def in_order(rows: Iterable[Row]) -> list[str]:
    """Return the names of a figure's rows in the order of its legend, and every name one line in all panels."""
    found: dict[str, Row] = {}
    variants: dict[str, int] = {}
    rows = list(rows)
    for row in sorted(rows, key=Row.rank):
        if row.name not in found:
            found[row.name] = row
            row.variant = variants[row.label] = variants.get(row.label, -1) + 1
        row.variant = found[row.name].variant
    if len(found) > MOST:
        raise ConfigError(too_many(list(found.values())))
    dress(rows)
    return list(found)


def dress(rows: Iterable[Row]) -> None:
    """Choose the look of a figure's rows."""
    rows = list(rows)
    chosen = looks((row.label, row.variant) for row in rows)
    for row in rows:
        row.look = chosen[row.label, row.variant]


def too_many(rows: Sequence[Row]) -> str:
    """Write which conditions would leave fewer of a figure's rows, as an error says it."""
    values: dict[str, dict[str, None]] = {}
    for row in rows:
        values.setdefault("method", {})[row.label] = None
        for key, value in row.apart.items():
            values.setdefault(key, {})[value] = None
    split = [f"where={typed(key)}:VALUE ({few(list(found))})" for key, found in values.items() if len(found) > 1]
    return (
        f"{len(rows)} rows are more than a figure can tell apart ({MOST}): choose some, by "
        f"{' or '.join(split) or 'where='}"
    )


def seeds(rows: Iterable[Row]) -> list[int]:
    """Count the seeds of every cell."""
    return [len(cell) for row in rows for cell in row.cells.values()]


def but_growth(run: Run) -> Signature:
    """Return all that decides a result but how connections grow, and the seed."""
    return tuple(
        (key, value)
        for key, value in signature(run, ())
        if key.removeprefix("choices.").split(".")[0] not in ("grow", "subset")
    )


def by_backend(runs: Iterable[Run]) -> dict[str, list[tuple[str, Row]]]:
    """Sort finished runs by where memory was measured: a panel per model, dataset, device and precision, by title.

    Rows come with the backend, which their names say; it is empty for dense training, which has nothing to simulate.
    """
    parts: dict[tuple[str, str, str], list[Run]] = {}
    runs = [run for run in runs if run.done]
    precisions = len({run.get("choices.precision") for run in runs}) > 1
    for run in runs:
        if run.done:
            backend = "" if run.get("label") == "dense" else str(run.get("choices.backend", "unknown"))
            where = _device(run), str(run.get("choices.precision")) if precisions else ""
            parts.setdefault((*where, backend), []).append(run)
    several = len({device for device, *_ in parts}) > 1
    found: dict[str, list[tuple[str, Row]]] = {}
    for (device, precision, backend), part in sorted(parts.items()):
        detail = ", ".join(part for part in (device if several else "", precision) if part)
        for block in blocks(part):
            for row in block.rows:
                row.name += f", {backend}" if backend else ""
                found.setdefault(titled(block, detail), []).append((backend, row))
    return {text: sorted(rows, key=lambda pair: pair[1].rank()) for text, rows in found.items()}


def _device(run: Run) -> str:
    """Name what memory was measured on; of several processes, the peak is that of one."""
    processes = run.get("env.processes", 1)
    return str(run.get("env.device", "unknown")) + (f", {processes} processes" if processes != 1 else "")
