"""Which runs may stand in one row and be averaged in one cell: those that differ in the seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from dstrun.report.load import Run, natural
from dstrun.report.style import order

# The seed is averaged over, sparsity is the column; the others cannot change a result.
FREE = {
    "seed", "sparsity", "experiment", "results", "wandb", "threads", "devices", "checkpoint.every_minutes",
    "dataset.root", "dataset.download",
}  # fmt: skip


@dataclass
class Row:
    """Runs of one method with one configuration, by sparsity; ``name`` is its label, and what sets it apart."""

    label: str
    name: str
    variant: int = 0
    cells: dict[float, list[Run]] = field(default_factory=dict)
    repeated: list[Run] = field(default_factory=list)
    unfinished: dict[float, list[Run]] = field(default_factory=dict)

    @property
    def sparsities(self) -> set[float]:
        """Give the sparsities that some run has."""
        return set(self.cells) | set(self.unfinished)

    def rank(self) -> tuple[Any, ...]:
        """Sort key of rows."""
        return *order(self.label), natural(self.name)


@dataclass
class Block:
    """What may be compared: one model on one split of one dataset."""

    model: str
    dataset: str
    split: str
    rows: list[Row]

    @property
    def title(self) -> str:
        """Name the block for readers."""
        return f"{self.model} on {self.dataset} ({self.split})"

    @property
    def sparsities(self) -> list[float]:
        """Give the sparsities of all rows, ascending; 0 is dense, ``EMERGES`` the last."""
        return sorted(set().union(*(row.sparsities for row in self.rows)))

    @property
    def most(self) -> int:
        """Count the seeds of the cell that has most."""
        return max((len(cell) for row in self.rows for cell in row.cells.values()), default=0)


def blocks(runs: Iterable[Run]) -> list[Block]:
    """Sort finished runs into blocks and rows; others are left out."""
    found: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in runs:
        if run.done:
            key = tuple(str(run.get(k, "unknown")) for k in ("choices.model", "choices.dataset", "accuracy.split"))
            found.setdefault(key, {}).setdefault(run.get("label"), []).append(run)
    return [
        Block(*key, rows=sorted((row for label in found[key] for row in _rows(label, found[key][label])), key=Row.rank))
        for key in sorted(found, key=lambda key: [natural(part) for part in key])
    ]


def _rows(label: str, runs: Sequence[Run]) -> Iterator[Row]:
    """Split the runs of one label by configuration, and name each part by what differs."""
    parts: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        parts.setdefault(signature(run), []).append(run)
    keys = differing(list(parts.values()))
    named = sorted(((_suffix(part[0], keys), part) for part in parts.values()), key=lambda pair: natural(pair[0]))
    for variant, (suffix, part) in enumerate(named):
        row = Row(label, label + suffix, variant)
        taken = set()
        for run in sorted(part, key=lambda run: (run.seed, str(run.folder))):
            if (run.sparsity, run.seed) in taken:
                # The same run kept under two experiments is one observation, not two.
                row.repeated.append(run)
            else:
                taken.add((run.sparsity, run.seed))
                row.cells.setdefault(run.sparsity, []).append(run)
        yield row


def signature(run: Run) -> tuple[tuple[str, str], ...]:
    """Give all that decides a result but the seed and the sparsity; equal for runs that may be averaged."""
    return tuple(sorted((key, repr(value)) for key, value in scalars(run).items()))


def scalars(run: Run) -> dict[str, Any]:
    """Flatten a run's configuration to dotted keys, without those that cannot change the result.

    Choices stand under ``choices.``; that of the method is left out, for a preset and the same parts chosen one by one
    are the same training.
    """
    config = run.get("config", {})
    flat = {key: value for key, value in _flat(config, config) if key not in FREE}
    chosen = run.get("choices", {})
    return flat | {f"choices.{key}": value for key, value in chosen.items() if key != "method" and value is not None}


def _flat(node: dict[str, Any], config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if prefix and isinstance(value, dict) and key in config:
            continue  # a copy of a group inside another, as grow.subset is of subset
        if isinstance(value, dict):
            yield from _flat(value, config, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing(parts: Sequence[Sequence[Run]]) -> list[str]:
    """Name the choices in which parts of a label differ, and the settings that differ beyond what those bring along.

    A chosen option brings the settings of its own group; a method's preset brings those of any group, so that beside
    two presets only top-level settings are named. The runs of a part are alike but for the way the method was named.
    """
    choices, settings = [], set()
    for one, other in combinations(parts, 2):
        first, second = one[0].get("choices", {}), other[0].get("choices", {})
        apart = [key for key in first | second if key != "method" and first.get(key) != second.get(key)]
        presets = not _methods(one) & _methods(other)
        if presets:
            apart.insert(0, "method")
        choices += [key for key in apart if key not in choices]
        a, b = scalars(one[0]), scalars(other[0])
        settings |= {
            key
            for key in a.keys() | b.keys()
            if a.get(key) != b.get(key)
            and key.split(".")[0] not in (*apart, "choices")
            and not (presets and "." in key)
        }
    return choices + sorted(settings)


def _methods(part: Sequence[Run]) -> set[Any]:
    return {run.get("choices.method") for run in part}


def _suffix(run: Run, keys: Sequence[str]) -> str:
    """Say the values of the keys, ``" (epochs=4)"``; a key the run does not have is left out."""
    values = scalars(run) | run.get("choices", {})
    said = [f"{key}={values[key]}" for key in keys if values.get(key) is not None]
    return f" ({', '.join(said)})" if said else ""
