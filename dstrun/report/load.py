"""Finds run folders and reads what they left. Damaged files are told of, never a traceback."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstrun.option import ConfigError, nearest

SCHEMA = 1
LOST_SECONDS = 120
EMERGES = 1.0
"""In the place of a sparsity where none was asked for and training found one: above all that can be asked for."""


@dataclass(frozen=True)
class Run:
    """A run folder: ``record`` is what it left when done, or None; ``status`` its last sign of life, may be empty.

    ``warnings`` has a sentence for each damaged file, which is treated as absent.
    """

    folder: Path
    id: str
    state: str
    record: dict[str, Any] | None
    status: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def done(self) -> bool:
        """Say whether the run has final numbers: a record, and a top-1 that is a number."""
        return self.state == "done" and self.top1 is not None

    @property
    def top1(self) -> float | None:
        """Give the final top-1 accuracy in percent, or None."""
        return number(self.get("accuracy.top1"))

    @property
    def seed(self) -> int:
        """Give the seed of a finished run."""
        return self.get("seed", 0)

    @property
    def sparsity(self) -> float:
        """Give the asked-for sparsity of a finished run, in [0, 1); ``EMERGES`` where training found one itself."""
        asked = float(number(self.get("config.sparsity")) or 0.0)
        return EMERGES if asked == 0 and self.realised > 0 else asked

    @property
    def realised(self) -> float:
        """Give the sparsity a finished run ended with, in [0, 1]."""
        return float(number(self.get("parameters.sparsity")) or 0.0)

    def get(self, key: str, default: Any = None) -> Any:
        """Look a dotted key up in the record, ``flops.train_x_dense``."""
        node: Any = self.record
        for part in key.split("."):
            if not isinstance(node, dict) or node.get(part) is None:
                return default
            node = node[part]
        return node

    def state_at(self, now: float) -> str:
        """Say the state; a running run without a heartbeat for ``LOST_SECONDS`` before ``now`` (unix time) is lost."""
        heartbeat = number(self.status.get("heartbeat"))
        if self.state == "running" and (heartbeat is None or now - heartbeat > LOST_SECONDS):
            return "lost"
        return self.state


def number(value: Any) -> float | None:
    """Take a finite number, or None for anything else."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def runs(path: Path | str) -> list[Run]:
    """Read every run under a folder: the results root, an experiment or one run; sorted by folder.

    Raises:
        ConfigError: there is no such folder.
    """
    path = Path(path)
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"RESULTS={path} is no folder{nearest(path.name, siblings)}")
    return [
        _read(Path(folder), names) for folder, names in sorted(_find(str(path), set()), key=lambda f: natural(f[0]))
    ]


def warnings(found: Iterable[Run]) -> list[str]:
    """Collect what was damaged, a sentence a file."""
    return [sentence for run in found for sentence in run.warnings]


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key that has ``seed2`` before ``seed10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def _find(folder: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, set[str]]]:
    """Walk to run folders, following links but never in a circle; a folder that may not be read has none."""
    try:
        here = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        return
    if (here.st_dev, here.st_ino) in seen:
        return
    seen.add((here.st_dev, here.st_ino))
    names = {entry.name for entry in entries}
    # Records kept for publication may come without their status.
    if "status.json" in names or "record.json" in names:
        yield folder, names
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir():
            yield from _find(entry.path, seen)


def _read(folder: Path, names: set[str]) -> Run:
    warned: list[str] = []
    files = {}
    for name in ("status.json", "record.json"):
        if name in names:
            try:
                files[name] = _json(folder / name)
            except (OSError, ValueError) as error:
                warned.append(f"{folder / name} cannot be read ({error}): skipped")
    status, record = files.get("status.json", {}), files.get("record.json")
    if record is not None and (fault := _fault(record)):
        warned.append(f"{folder / 'record.json'} {fault}: skipped")
        record = None
    state = str(record["state"] if record else status.get("state", "damaged"))
    if state == "done" and record is None:
        # The record is written last: a done run has one unless the file was lost or damaged afterwards.
        state = "damaged"
    name = (record or status).get("id")
    return Run(folder, name if isinstance(name, str) else folder.name, state, record, status, tuple(warned))


def _json(file: Path) -> dict[str, Any]:
    value = json.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _fault(record: dict[str, Any]) -> str | None:
    """Say what keeps a record from being read, if anything does."""
    if record.get("schema") != SCHEMA:
        return f"has schema {record.get('schema')}, and this version reads {SCHEMA}"
    kinds = {"state": str, "label": str, "choices": dict, "config": dict, "accuracy": dict, "seed": int}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            return f"lacks {key}"
    return None


def metrics(run: Run) -> list[dict[str, Any]]:
    """Read ``metrics.csv``: a row an epoch, numbers as numbers, nothing as None; no rows where there is no file.

    A last line cut short by a kill is left out; of an epoch written twice, by a run that was continued, the later
    row counts.
    """
    try:
        text = (run.folder / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # Only whole lines: half a number is still a number.
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not lines:
        return []
    header, epochs = lines[0], {}
    for line in lines[1:]:
        row = {key: _value(word) for key, word in zip(header, line, strict=False)}
        if len(line) == len(header) and isinstance(row.get("epoch"), int):
            epochs[row["epoch"]] = row
    return [epochs[epoch] for epoch in sorted(epochs)]


def _value(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word or None
