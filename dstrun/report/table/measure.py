"""What the cells of a table show: a number of each run, by the key of its record, or its ratio to another method's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from dstrun.report.compare import Block, Layout, Row, signature
from dstrun.report.fields import Field, resolve
from dstrun.report.format import Kind
from dstrun.report.load import Run, number
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import few

TITLES = {
    "accuracy.top1": "top-1",
    "accuracy.top5": "top-5",
    "config.epochs": "epochs",
    "flops.train": "train FLOPs",
    "flops.train_x_dense": "train, x dense",
    "flops.executed_x_dense": "executed, x dense",
    "flops.inference": "inference FLOPs",
    "flops.inference_x_dense": "inference, x dense",
    "memory.model_bytes": "model",
    "memory.optimizer_bytes": "optimizer",
    "memory.activation_bytes": "activation",
    "memory.index_bytes": "index",
    "memory.method_bytes": "method's own",
    "memory.transient_bytes": "transient",
    "memory.peak_bytes": "peak",
    "memory.update_peak_bytes": "update peak",
    "seconds.total": "total",
    "seconds.train": "training",
    "seconds.epoch_median": "epoch",
    "seconds.step_median": "step",
    "seconds.update_median": "update",
}
CONVENTIONS = {"flops": "flops.convention", "memory": "memory.how", "seconds": "env.device"}
"""By group of a record, the field that says how its numbers came about."""


@dataclass(frozen=True)
class Measure:
    """A number of runs: that of a ``field``, divided by that of the method ``over`` where it is not empty."""

    field: Field
    over: str = ""

    @property
    def name(self) -> str:
        """Return it as it is typed."""
        return f"{self.field.key}/{self.over}" if self.over else self.field.key

    @property
    def group(self) -> str:
        """Name its group of the record: ``accuracy``, ``flops``, ..."""
        return self.field.key.partition(".")[0]

    @property
    def accuracy(self) -> bool:
        """Return whether it is an accuracy: shown with its spread, the higher the better."""
        return self.field.key in ("accuracy.top1", "accuracy.top5") and not self.over

    @property
    def title(self) -> str:
        """Name it for readers."""
        title = TITLES.get(self.field.key, self.field.name)
        return f"{title}, x {self.over}" if self.over else title

    @property
    def kind(self) -> Kind:
        """Return how it is shown."""
        key = self.field.key
        if self.accuracy:
            return "mean"
        if self.over or "_x_" in key:
            return "x"
        if key.endswith("_bytes"):
            return "bytes"
        return {"flops": "flops", "seconds": "seconds"}.get(self.group, "number")  # type: ignore[return-value]

    def of(self, runs: Sequence[Run]) -> list[float]:
        """Return the value of each run; none at all where one lacks it, or where it was measured in several ways."""
        known = [value for run in runs if (value := number(self.field.of(run))) is not None]
        return known if len(known) == len(runs) and len(self.ways(runs)) == 1 else []

    def ways(self, runs: Sequence[Run]) -> set[str]:
        """Return how values were measured: memory by what, seconds on which device with how many threads."""
        if self.group == "memory":
            return {str(run.get("memory.how")) for run in runs}
        return {timed(run) for run in runs} if self.group == "seconds" else {""}

    def summary(self, runs: Sequence[Run], reference: Sequence[Run] | None) -> tuple[float | None, float | None]:
        """Return the mean over runs, and the sample standard deviation of more than one; of a ratio, that of means."""
        found = self.of(runs)
        if not found or (self.over and (not reference or self.ways(reference) != self.ways(runs))):
            return None, None
        mean, spread = fmean(found), stdev(found) if len(found) > 1 else None
        if self.over:
            over = fmean(self.of(reference or []) or [0])
            return (mean / over, None) if over else (None, None)
        return mean, spread

    def json(self, value: float | None) -> Any:
        """Leave whole numbers whole."""
        whole = value is not None and value.is_integer() and self.kind in ("bytes", "flops", "number")
        return int(value) if whole else value  # type: ignore[arg-type]


def timed(run: Run) -> str:
    """Return on what a run's seconds were measured: device, CPU threads, processes if several, runs that took turns."""
    threads, processes, together = run.get("env.threads"), run.get("env.processes", 1), run.get("env.together", 1)
    said = [str(run.get("env.device", "an unknown device"))]
    said += [f"{threads} thread{'' if threads == 1 else 's'}"] if threads is not None else []
    said += [f"{processes} processes"] if processes != 1 else []
    return ", ".join(said + ([f"{together} runs in turns"] if together != 1 else []))


def measure(name: str, runs: Sequence[Run]) -> Measure:
    """Read ``KEY`` or ``KEY/METHOD``.

    Raises:
        ConfigError: no run has it, or it is no number.
    """
    key, _, over = name.partition("/")
    if key in TITLES:
        return Measure(Field(key, key), over)
    field = resolve(key, runs, "value=")
    values = [value for run in runs if (value := field.of(run)) is not None]
    if values and all(number(value) is None or isinstance(value, bool) for value in values):
        raise ConfigError(f"value={name} is not a number: in these runs it is {field.text(values[0])}")
    return Measure(field, over)


ALIKE = (
    "choices.model", "choices.dataset", "model", "epochs", "batch_size", "precision", "label_smoothing",
    "dataset.limit", "dataset.validation",
)  # fmt: skip
"""Settings and groups in which a run and what it is held against must agree.

They must agree in the split too and, where that is not dense, in the sparsity.
"""

CLOSEST = ("optimizer", "choices.allocation", "choices.scope", "choices.backend", "schedule")
"""In which they should, where there is a choice, the first first."""


class References:
    """The cells of one method in a block, to hold others against.

    Args:
        block: whose rows are looked through.
        label: of the method.
    """

    def __init__(self, block: Block, label: str) -> None:
        self.label = label
        self._cells: dict[tuple[str, ...], list[list[Run]]] = {}
        for row in block.rows if label else ():
            if row.label == label:
                for cell in row.cells.values():
                    self._cells.setdefault(self._key(cell[0]), []).append(cell)

    def of(self, run: Run) -> list[Run] | None:
        """Return the runs that one is held against; None where there are none, or several that differ."""
        found = self._cells.get(self._key(run), [])
        for key in CLOSEST:
            agreeing = [cell for cell in found if _of(cell[0], key) == _of(run, key)]
            found = agreeing or found
        if len({signature(cell[0]) for cell in found}) != 1:
            return None
        return [other for cell in found for other in cell]

    def _key(self, run: Run) -> tuple[str, ...]:
        sparsity = () if self.label == "dense" else (str(run.sparsity),)
        return repr(run.get("accuracy.split")), repr(_of(run, *ALIKE)), *sparsity


def _of(run: Run, *keys: str) -> list[tuple[str, str]]:
    """Return a run's settings that are named, or are of a group that is."""
    return [(key, value) for key, value in signature(run) if key in keys or key.partition(".")[0] in keys]


TRAINING = {"epochs": "", "batch_size": "", "label_smoothing": "", "precision": "", "dataset.": "dataset",
            "optimizer.": "model", "model.": "model"}  # fmt: skip
"""Settings that should agree in all that is compared, and the field that brings them where it is a row or column."""


def unlike(rows: Sequence[Row], layout: Layout) -> list[str]:
    """Return in what the training of a block's rows differs without their saying so: ``epochs 6 (set), 200 (rigl)``."""
    own = layout.settings | {f.name for f in layout.fields}
    kept = tuple(prefix for prefix, group in TRAINING.items() if group not in own)
    settings = [dict(row.signature) for row in rows]
    keys = dict.fromkeys(key for found in settings for key in found if key.startswith(kept))
    differing = []
    for key in sorted(keys.keys() - own):
        by_value: dict[str, list[str]] = {}
        for row, found in zip(rows, settings, strict=True):
            if f"{key}=" not in row.suffix and row.signature:
                by_value.setdefault(found.get(key, "-"), []).append(row.brief)
        if len(by_value) > 1:
            parts = (f"{value.strip(chr(39))} ({few(list(dict.fromkeys(who)))})" for value, who in by_value.items())
            differing.append(f"{key} {', '.join(parts)}")
    return differing
