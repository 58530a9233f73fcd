"""Lines over something else than sparsity: rows of runs that differ in the seed and in what x says alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from dstrun.report.compare import Block, Row, blocks, differing, scalars
from dstrun.report.load import EMERGES, Run, natural


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


def titled(block: Block, sparsity: float = 0.0, detail: str = "") -> str:
    """Title a panel of a block, at one sparsity if it is given."""
    words = [word for word in (level(sparsity) if sparsity else "", detail) if word]
    return Panel(block.model, block.dataset, block.split, ", ".join(words)).title


def level(sparsity: float) -> str:
    """Say a sparsity."""
    return "emerges" if sparsity == EMERGES else f"{100 * sparsity:g}%" if sparsity else "dense"


def panels(
    runs: Iterable[Run], at: Callable[[Run], Any], free: Collection[str], detail: Callable[[Run], str] | None = None
) -> dict[Panel, list[Row]]:
    """Sort finished runs into panels and rows whose cells are keyed by ``at``; a run without a place is left out.

    Args:
        runs: of any configuration.
        at: the place of a run along x, or None.
        free: dotted settings that may differ within a row, with all below them.
        detail: what keeps panels apart besides model, dataset and split; the sparsity if it is not given.
    """
    found: dict[Panel, dict[str, list[Run]]] = {}
    for run in runs:
        if run.done and at(run) is not None:
            where = [str(run.get(key, "unknown")) for key in ("choices.model", "choices.dataset", "accuracy.split")]
            panel = Panel(*where, detail=detail(run) if detail else level(run.sparsity))
            found.setdefault(panel, {}).setdefault(run.get("label"), []).append(run)
    return {
        panel: sorted(
            (row for label in found[panel] for row in _rows(label, found[panel][label], at, free)), key=Row.rank
        )
        for panel in sorted(found, key=lambda panel: [natural(part) for part in panel])
    }


def _rows(label: str, runs: Sequence[Run], at: Callable[[Run], Any], free: Collection[str]) -> list[Row]:
    parts: dict[Any, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, str(run.folder))):
        parts.setdefault(alike(run, free), []).append(run)
    keys = [key for key in differing(list(parts.values())) if not _below(key, free)]
    rows = []
    for part in parts.values():
        values = scalars(part[0]) | part[0].get("choices", {})
        said = ", ".join(f"{key}={values[key]}" for key in keys if values.get(key) is not None)
        row = Row(label, f"{label} ({said})" if said else label)
        for run in part:
            cell = row.cells.setdefault(at(run), [])
            # The same run kept under two experiments is one observation, not two.
            (cell if run.seed not in {other.seed for other in cell} else row.repeated).append(run)
        rows.append(row)
    return rows


def in_order(rows: Iterable[Row]) -> list[str]:
    """Give the names of a figure's rows in the order of its legend, and every name one line in all panels."""
    found: dict[str, Row] = {}
    variants: dict[str, int] = {}
    for row in sorted(rows, key=Row.rank):
        if row.name not in found:
            found[row.name] = row
            row.variant = variants[row.label] = variants.get(row.label, -1) + 1
        row.variant = found[row.name].variant
    return list(found)


def alike(run: Run, free: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Give all that decides a result but the seed, the sparsity and ``free``; equal for runs that may be compared."""
    return tuple(sorted((key, repr(value)) for key, value in scalars(run).items() if not _below(key, free)))


def by_backend(runs: Iterable[Run]) -> dict[str, list[tuple[str, Row]]]:
    """Sort finished runs by where memory was measured: a panel per model, dataset and device, by title.

    Rows come with the backend, which their names say; it is empty for dense training, which has nothing to simulate.
    """
    parts: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.done:
            backend = "" if run.get("label") == "dense" else str(run.get("choices.backend", "unknown"))
            parts.setdefault((_device(run), backend), []).append(run)
    several = len({device for device, _ in parts}) > 1
    found: dict[str, list[tuple[str, Row]]] = {}
    for (device, backend), part in sorted(parts.items()):
        for block in blocks(part):
            for row in block.rows:
                row.name += f", {backend}" if backend else ""
                found.setdefault(titled(block, detail=device if several else ""), []).append((backend, row))
    return {text: sorted(rows, key=lambda pair: pair[1].rank()) for text, rows in found.items()}


def _device(run: Run) -> str:
    """Name what memory was measured on; of several processes, the peak is that of one."""
    processes = run.get("env.processes", 1)
    return str(run.get("env.device", "unknown")) + (f", {processes} processes" if processes != 1 else "")


def first(row: Row) -> Run:
    """Give a run of a row; all have the same settings but those that are free."""
    return next(iter(row.cells.values()))[0]


def _below(key: str, free: Collection[str]) -> bool:
    key = key.removeprefix("choices.")
    return any(key == other or key.startswith(f"{other}.") for other in free)
