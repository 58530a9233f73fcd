"""What works on this machine: ``dstrun doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dstrun.report.format import Column
from dstrun.system.free import total_bytes

COLUMNS = [Column("what", "what"), Column("state", "state"), Column("detail", "detail")]


def examine() -> tuple[list[dict[str, Any]], list[Column]]:
    """Check everything a run may need; ``broken`` stops every run, ``absent`` is needed by some only."""
    checks = {
        "python": _python,
        "torch": _torch,
        "gpu": _gpu,
        "memory": _memory,
        "results": _results,
        "data cache": _cache,
        "W&B": _wandb,
        "TensorBoard": partial(_packages, ("tensorboard",), "tensorboard"),
        "MLflow": partial(_packages, ("mlflow", "mlflow-skinny"), "mlflow"),
        "safetensors": partial(_packages, ("safetensors",), "dstrun[export]"),
        "ONNX": partial(_packages, ("onnx",), "dstrun[export]"),
        "SLURM": _slurm,
    }
    rows = []
    for what, check in checks.items():
        try:
            state, detail = check()
        except Exception as error:
            state, detail = "broken", f"{type(error).__name__}: {error}"
        rows.append({"what": what, "state": state, "detail": detail})
    return rows, COLUMNS


def _python() -> tuple[str, str]:
    return "works", f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> tuple[str, str]:
    import torch

    torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
    return "works", f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        for device in devices:
            x = torch.ones(1, 8, 8, 8, device=f"cuda:{device}")
            y = torch.nn.functional.conv2d(x, x) @ x[0, 0, :1].t()
            torch.cuda.synchronize(device)
            if y.flatten()[0].item() != 512:
                return "broken", f"{torch.cuda.get_device_name(device)} computes {y.flatten()[0].item()} instead of 512"
        return "works", ", ".join(map(torch.cuda.get_device_name, devices))
    if torch.backends.mps.is_available():
        return "works", "mps"
    return "absent", "training runs on the CPU"


def _memory() -> tuple[str, str]:
    return "works", f"{total_bytes() / 2**30:.1f} GiB, {os.cpu_count()} cores"


def _results() -> tuple[str, str]:
    with tempfile.TemporaryFile(dir=Path.cwd()):
        return "works", f"{Path.cwd()} is writable, {shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free"


def _cache() -> tuple[str, str]:
    from dstrun.dataset.cache import cache_folder

    folder = cache_folder()
    held = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return "works", f"{folder}: {', '.join(held) or 'empty'}"


def _wandb() -> tuple[str, str]:
    from dstrun.tracker.wandb import decide

    mode, reason = decide("auto")
    return "works", f"{importlib.metadata.version('wandb')}, {mode}: {reason}"


def _packages(names: Sequence[str], install: str) -> tuple[str, str]:
    """Look for a library that few need, by the names of its distributions."""
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            return "works", importlib.metadata.version(name)
    return "absent", f"pip install '{install}'" if "[" in install else f"pip install {install}"


def _slurm() -> tuple[str, str]:
    found = shutil.which("sbatch")
    return ("works", found) if found else ("absent", "no sbatch on PATH")
