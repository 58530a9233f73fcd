"""Tables of a paper from finished runs: every cell names the seeds and the runs behind it.

Seeds are averaged over and nothing else is: runs whose configuration differs in any other way stand in rows of their
own (``compare``). The standard deviation is that of a sample, with n - 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from dstrun.option import ConfigError, nearest
from dstrun.report.compare import Block, Row, blocks
from dstrun.report.format import Column, Mean, latex_escape, render
from dstrun.report.load import EMERGES, Run, number

FINAL = "mean ± sample standard deviation over seeds (n) at the final epoch, never best on test"
EMERGED = "emerges: no sparsity was asked for, training found the one in the cell (mean over seeds), so none is bold"
FEWER, UNFINISHED = "*", "†"


@dataclass
class Table:
    """A table: ``parts`` for readers, one per block, and ``cells`` for programs, one row per cell."""

    parts: list[tuple[str, list[dict[str, Any]], list[Column]]]
    cells: list[dict[str, Any]]
    columns: list[Column]
    notes: list[str] = field(default_factory=list)

    def render(self, fmt: str = "md") -> str:
        """Render as md or latex with the notes below, or as csv or json in long form, one row per cell.

        Raises:
            ConfigError: an unknown format.
        """
        if fmt == "md":
            texts = [f"### {title}\n\n{render(rows, columns, fmt)}" for title, rows, columns in self.parts]
            notes = [f"- {_md_note(note)}" for note in self.notes]
            return "\n\n".join([*texts, "\n".join(notes)]).rstrip()
        if fmt == "latex":
            texts = [f"% {title}\n{render(rows, columns, fmt)}" for title, rows, columns in self.parts]
            notes = [rf"\par{{\footnotesize {latex_escape(note)}}}" for note in self.notes]
            return "\n\n".join([*texts, "\n".join(notes)]).rstrip()
        return render(self.cells, self.columns, fmt)


def _md_note(note: str) -> str:
    # An asterisk at the start of a line would be read as the sign of a list.
    return f"\\{note}" if note.startswith("*") else note


def build(runs: Sequence[Run], preset: str = "accuracy", digits: int = 1) -> Table:
    """Build a table of ``PRESETS``; ``digits`` are the decimals of accuracies for readers.

    Raises:
        ConfigError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset} is not known: choose {', '.join(PRESETS)}{nearest(preset, PRESETS)}")
    return PRESETS[preset](runs, digits)


def accuracy(runs: Sequence[Run], digits: int = 1) -> Table:
    """Tabulate final top-1 accuracy in percent: a row per method, a column per sparsity, a block per model and data.

    Cells of fewer seeds than the largest of their block, and cells with unfinished runs, are flagged; the best mean of
    a column is bold, dense apart, where two or more compete. Runs whose sparsity training found stand in a column of
    their own, each with the sparsity it reached; they compete with none.
    """
    found = blocks(runs)
    lost = _place([run for run in runs if not run.done], found)
    parts, cells = [], []
    for block in found:
        columns = [Column("method")]
        columns += [Column(str(s), _percent(s), "mean", digits) for s in block.sparsities]
        means = {(row.name, s): _mean(row, s, block.most) for row in block.rows for s in row.sparsities}
        for sparsity in block.sparsities:
            rivals = [
                (row.name, sparsity)
                for row in block.rows
                if row.label != "dense"
                and sparsity != EMERGES
                and (row.name, sparsity) in means
                and means[row.name, sparsity].n
            ]
            best = max((_shown(means[key], digits) for key in rivals), default=0.0)
            for key in rivals:
                if len(rivals) > 1 and _shown(means[key], digits) == best:
                    means[key] = replace(means[key], best=True)
        parts.append((block.title, [_line(row, means) for row in block.rows], columns))
        cells += [_cell(block, row, s, means[row.name, s]) for row in block.rows for s in sorted(row.sparsities)]
    return Table(parts, cells, ACCURACY_COLUMNS, _notes(found, lost))


ACCURACY_COLUMNS = [
    *map(Column, ("model", "dataset", "split", "method", "backend")),
    Column("sparsity", kind="number", digits=4),
    Column("mean", kind="number", digits=4),
    Column("std", kind="number", digits=4),
    Column("n", kind="number"),
    *map(Column, ("seeds", "runs", "unfinished")),
]


def _percent(sparsity: float) -> str:
    return "emerges" if sparsity == EMERGES else f"{100 * sparsity:g}%" if sparsity else "dense"


def _reached(row: Row, sparsity: float) -> float:
    """Give the sparsity of a cell; where training found it, the mean over the seeds."""
    cell = row.cells.get(sparsity, [])
    return fmean(run.realised for run in cell) if sparsity == EMERGES and cell else sparsity


def _shown(mean: Mean, digits: int) -> float:
    """Round as shown, so that all that look best are bold."""
    return round(mean.mean or 0.0, digits)


def _mean(row: Row, sparsity: float, most: int) -> Mean:
    values = [run.top1 or 0.0 for run in row.cells.get(sparsity, [])]
    n = len(values)
    marks = (FEWER if 0 < n < most else "") + (UNFINISHED if row.unfinished.get(sparsity) else "")
    at = 100 * _reached(row, sparsity) if sparsity == EMERGES and n else None
    return Mean(fmean(values) if n else None, stdev(values) if n > 1 else None, n, False, marks, at)


def _line(row: Row, means: dict[tuple[str, float], Mean]) -> dict[str, Any]:
    return {"method": row.name} | {str(s): means[row.name, s] for s in row.sparsities}


def _cell(block: Block, row: Row, sparsity: float, mean: Mean) -> dict[str, Any]:
    runs = row.cells.get(sparsity, [])
    return {
        "model": block.model, "dataset": block.dataset, "split": block.split,
        "method": row.name, "backend": runs[0].get("choices.backend") if runs else None,
        "sparsity": _reached(row, sparsity),
        "mean": mean.mean, "std": mean.std, "n": mean.n,
        "seeds": [run.seed for run in runs], "runs": [run.id for run in runs],
        "unfinished": [run.id for run in row.unfinished.get(sparsity, [])],
    }  # fmt: skip


def _place(unfinished: Sequence[Run], found: Sequence[Block]) -> list[Run]:
    """Note each unfinished run at the cell its name says it was for; return those that have no place.

    A run without a record is known by its name alone, ``model-dataset-label-s0.98-seed0-hash``. Where rows share a
    label it may belong to any that lacks its seed.
    """
    homeless = []
    for run in unfinished:
        placed = False
        for block in found:
            named = re.fullmatch(
                rf"{re.escape(block.model)}-{re.escape(block.dataset)}-(.+)-s([\d.e-]+)-seed(\d+)-\w+", run.id
            )
            if not named:
                continue
            label, sparsity, seed = named[1], float(named[2]), int(named[3])
            rows = [row for row in block.rows if row.label == label]
            if not rows:
                rows = [Row(label, label)]
                block.rows = sorted([*block.rows, *rows], key=Row.rank)
            if sparsity == 0 and any(EMERGES in row.sparsities for row in rows):
                sparsity = EMERGES
            for row in [row for row in rows if sparsity in row.sparsities] or rows:
                if seed not in {other.seed for other in row.cells.get(sparsity, [])}:
                    row.unfinished.setdefault(sparsity, []).append(run)
                    placed = True
        if not placed:
            homeless.append(run)
    return homeless


def _notes(found: Sequence[Block], lost: Sequence[Run]) -> list[str]:
    """Write the footnotes: flags first, then what every number is."""
    rows = [row for block in found for row in block.rows]
    notes = []
    counts = {(len(cell), b.most) for b in found for row in b.rows for cell in row.cells.values()}
    fewer = [f"{n} of {most}" for n, most in sorted(counts) if n < most]
    if fewer:
        notes.append(f"{FEWER} fewer seeds than other cells ({', '.join(fewer)})")
    waiting = {run.id: run for row in rows for cell in row.unfinished.values() for run in cell}
    if waiting:
        notes.append(f"{UNFINISHED} not finished: {_listed(waiting.values())}")
    if lost:
        notes.append(f"not finished and in no cell: {_listed(lost)}")
    repeated = [run for row in rows for run in row.repeated]
    if repeated:
        notes.append(f"left out, as they repeat the configuration and the seed of another: {_listed(repeated)}")
    splits = sorted({block.split for block in found})
    if found:
        if any(EMERGES in block.sparsities for block in found):
            notes.append(EMERGED)
        notes.append(f"top-1 accuracy in percent on the {' and '.join(splits)} split: {FINAL}")
        notes.append(_backends(rows))
    return notes


def _listed(runs: Iterable[Run]) -> str:
    """Name the first few runs and their states, count the rest."""
    names = [f"{run.id} ({run.state})" for run in runs]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _backends(rows: Iterable[Row]) -> str:
    """Say how weights were stored, for a masked row is a simulation."""
    names = {str(run.get("choices.backend")) for row in rows for cell in row.cells.values() for run in cell}
    said = [f"{name} (simulated on dense storage)" if name == "masked" else name for name in sorted(names)]
    return f"all rows: backend {said[0]}" if len(said) == 1 else f"backends: {', '.join(said)}"


def cost(runs: Sequence[Run], digits: int = 1) -> Table:
    """Tabulate what training cost beside what it reached: FLOPs, memory and time, means over seeds.

    Memory is not averaged over seeds that were measured in different ways, as on a GPU and on a CPU.
    """
    found = blocks(runs)
    finished = [run for block in found for row in block.rows for cell in row.cells.values() for run in cell]
    parts, cells = [], []
    for block in found:
        lines = []
        for row in block.rows:
            for sparsity, cell in sorted(row.cells.items()):
                mean, costs = replace(_mean(row, sparsity, 0), at=None), _costs(cell)
                reached = (
                    f"{100 * _reached(row, sparsity):.1f}% (emerged)" if sparsity == EMERGES else _percent(sparsity)
                )
                lines.append({"method": row.name, "sparsity": reached, "top1": mean} | costs)
                cells.append(_cell(block, row, sparsity, mean) | costs)
        columns = [Column("method"), Column("sparsity"), Column("top1", "top-1", "mean", digits), *COST_COLUMNS]
        parts.append((block.title, lines, columns))
    notes = [f"{says}: {'; '.join(sources)}" for key, says in SOURCES.items() if (sources := _sources(finished, key))]
    if found:
        notes = [f"top-1 is the {FINAL}", "costs are means over the same seeds", *notes]
        notes.append(_backends([row for block in found for row in block.rows]))
    return Table(parts, cells, [*(c for c in ACCURACY_COLUMNS if c.key != "unfinished"), *COST_COLUMNS], notes)


COST_COLUMNS = [
    Column("train_flops", "train FLOPs", "flops"),
    Column("train_x_dense", "train", "x"),
    Column("executed_x_dense", "executed", "x"),
    Column("inference_x_dense", "inference", "x"),
    Column("peak_bytes", "peak memory", "bytes"),
    Column("update_peak_bytes", "update peak", "bytes"),
    Column("step_seconds", "step", "seconds"),
]
SOURCES = {
    "flops.convention": "x is of dense training; FLOPs",
    "memory.how": "memory",
    "env.device": "time on",
}


def _costs(cell: Sequence[Run]) -> dict[str, float | None]:
    """Average the costs of a cell; None where a run lacks one."""
    one_way = len({run.get("memory.how") for run in cell}) == 1
    return {
        "train_flops": _average([run.get("flops.train") for run in cell]),
        "train_x_dense": _average([run.get("flops.train_x_dense") for run in cell]),
        "executed_x_dense": _average([_executed(run) for run in cell]),
        "inference_x_dense": _average([run.get("flops.inference_x_dense") for run in cell]),
        "peak_bytes": _average([run.get("memory.peak_bytes") for run in cell]) if one_way else None,
        "update_peak_bytes": _average([run.get("memory.update_peak_bytes") for run in cell]) if one_way else None,
        "step_seconds": _average([run.get("seconds.step_median") for run in cell]),
    }


def _average(values: Sequence[Any]) -> float | None:
    known = [value for value in map(number, values) if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _executed(run: Run) -> float | None:
    """Hold the FLOPs that the backend really did against dense training."""
    executed, train, share = (number(run.get(f"flops.{key}")) for key in ("executed_train", "train", "train_x_dense"))
    return executed * share / train if executed is not None and train and share is not None else None


def _sources(runs: Iterable[Run], key: str) -> list[str]:
    return sorted({str(run.get(key)) for run in runs if run.get(key) is not None})


PRESETS: dict[str, Callable[[Sequence[Run], int], Table]] = {"accuracy": accuracy, "cost": cost}
