"""Results of a benchmark: one row per measurement, with the machine it was made on, in a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
