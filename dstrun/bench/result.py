"""Results of a benchmark: one row per measurement, with the machine it was made on, in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstrun.config.option import expanded
from dstrun.report.format import Column, render
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, why

CASE = {
    "kernel": ["layer", "sparsity", "batch"],
    "step": ["model", "sparsity", "allocation", "batch"],
    "scaling": ["n", "degree", "batch", "active"],
    "infer": ["network", "sparsity", "allocation", "batch"],
    "machine": ["kilobytes"],
}
"""What a row of each bench was measured on."""

TIMES = ["implementation", "pass", "rounds", "median", "q1", "q3", "x_median", "x_q1", "x_q3"]
REST = ["bytes", "resident_bytes", "note", "device", "threads", "torch", "processor"]
TEXT = {"bench", "layer", "implementation", "pass", "model", "network", "allocation", "note"}
TEXT |= {"device", "torch", "processor"}
"""The columns that are no numbers."""


def columns(bench: str) -> list[Column]:
    """List the columns of a bench's file; ``bench`` is the first, so that a file says what it is."""
    return [Column(key) for key in ["bench", *CASE[bench], *TIMES, *REST]]


def write(bench: str, rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write the rows measured so far.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render(rows, columns(bench), "csv") + "\n")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {why(error)}") from error


def read(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a file that ``dstrun bench`` has written.

    Raises:
        ConfigError: it is not there, or no such file.
    """
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from error
    if any(row.get("bench") not in CASE for row in rows):
        raise ConfigError(f"{file} is not a file of dstrun bench: no column bench with one of {', '.join(CASE)}")
    try:
        return [{key: _value(key, text) for key, text in row.items()} for row in rows]
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}") from error


def measured(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read the rows of one bench, from a file or several.

    Raises:
        ConfigError: a file is none of ``dstrun bench``, or they are of several benches.
    """
    if not files or any(Path(file).suffix != ".csv" for file in files):
        raise ConfigError("files that dstrun bench has written end in .csv, as results/bench/kernel.csv")
    rows = [row for file in files for row in read(Path(expanded(str(file))))]
    if len(kinds := {row["bench"] for row in rows}) > 1:
        raise ConfigError(f"one bench at a time: these files are of {', '.join(sorted(kinds))}")
    return rows


def _value(key: str, text: str) -> Any:
    if key in TEXT:
        return text
    number = float(text) if text else None
    return int(number) if number is not None and number.is_integer() else number


def machine(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Set the number of threads, announce compilation, and give the columns that say where a measurement was made.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda is not available on this machine")
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cpu":
        from dstrun.layer.backend import backend
        from dstrun.system.heap import keep_freed

        backend("sparse").announce(say)
        keep_freed()  # as a run does, for every implementation
    from dstrun.backend.auto import processor

    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__, "processor": name}
