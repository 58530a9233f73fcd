"""What a run has left, without what is measured in seconds and bytes, and how it differs from another."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dstrun.train.checkpoint import is_whole

RECORD = (
    "schema", "id", "experiment", "state", "label", "choices", "config", "accuracy", "parameters", "flops", "updates",
    "layers", "not_prunable", "seed", "backends", "network", "data",
)  # fmt: skip
METRICS = ("epoch", "step", "train_loss", "loss", "top1", "top5", "lr", "flops", "split")
TOPOLOGY = ("step", "layer", "active", "pruned", "grown", "candidates", "explored")
STATE = (
    "step", "updates", "skipped", "initial", "images", "model", "backends", "layers", "optimizer", "procedure",
    "precision", "flops", "loss_sum",
)  # fmt: skip


def run_folder(folder: Path) -> Path | None:
    """Find the one run below a folder in which a command ran."""
    return next((path for path in folder.glob("results/*/*/") if not path.name.startswith(".")), None)


def left_by(run: Path) -> dict[str, Any]:
    """Read what a finished run has left; a part that is missing, or not whole, says so.

    Returns:
        By part: the record, the checkpoint, the rows of metrics and of topology.
    """
    return {
        "record.json": _record(run / "record.json"),
        "checkpoint.pt": _checkpoint(run / "checkpoint.pt"),
        "metrics.csv": _rows(run / "metrics.csv", METRICS),
        "topology.csv": _rows(run / "topology.csv", TOPOLOGY),
    }


def left_over(run: Path) -> list[str]:
    """List files that a finished run should not have."""
    names = [f.name for f in run.iterdir() if ".damaged" not in f.name]  # such is kept, and said
    return sorted(name for name in names if (name[0] == "." and name != ".lock") or ".previous" in name)


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Name every place in which two things differ, bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes():
            yield where
    elif isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from differences(a[key], b[key], f"{where}.{key}" if where else str(key))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif type(a) is not type(b) or a != b:
        yield where


def _record(path: Path) -> Any:
    try:
        record = json.loads(path.read_bytes())
        return {key: record.get(key) for key in RECORD}
    except (OSError, ValueError, AttributeError) as error:
        return f"cannot be read ({type(error).__name__})"


def _checkpoint(path: Path) -> Any:
    if not is_whole(path):
        return "is incomplete" if path.exists() else "is missing"
    state = torch.load(path, weights_only=True)
    return {key: state.get(key) for key in STATE}


def _rows(path: Path, columns: tuple[str, ...]) -> Any:
    try:
        with open(path, newline="") as file:
            return [[row.get(column) for column in columns] for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        return f"cannot be read ({type(error).__name__})"
