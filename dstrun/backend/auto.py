"""Stores every layer the way that trains faster here: measured once a shape and density, kept in a file.

Below some sparsity a dense product is faster than a sparse one; where that is depends on the shape, the batch and the
machine. What is measured: forward and backward of one layer, each backend with its input in the layout it likes.
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.backend import masked, sparse
from dstrun.backend.kernel import NO_TRITON
from dstrun.layer.geometry import Layer
from dstrun.layer.initial import Initial, initial
from dstrun.layer.interface import SparseLayer, prunable
from dstrun.system.bounded import content
from dstrun.system.trouble import ConfigError
from dstrun.system.whole import write_atomic

ROUNDS = 5
BYTES = 1 << 24
LARGEST = 1 << 27
"""A layer of more connections is stored sparse unmeasured: its dense form alone would take a gigabyte."""


def choose(
    model: nn.Module, counts: Sequence[int], inputs: Sequence[tuple[int, ...]], device: torch.device, cache: Path
) -> list[str]:
    """Choose the backend of every prunable layer.

    Args:
        model: its prunable layers may lie on ``meta``.
        counts: active connections of each.
        inputs: the shape of each one's input, batch included.
        device: where it trains.
        cache: a JSON file of earlier measurements; written to.

    Returns:
        ``masked`` or ``sparse`` for each.
    """
    known = _known(cache)
    chosen = []
    for (_, module), count, shape in zip(prunable(model), counts, inputs, strict=True):
        if not has_kernel(module, device):
            chosen.append("masked")
            continue
        if module.weight.numel() > LARGEST:
            chosen.append("sparse")
            continue
        key = _key(module, count, shape, device)
        if key not in known:
            known[key] = measure(module, count, shape, device)
            _keep(cache, known)
        chosen.append(min(known[key], key=known[key].__getitem__))
    return chosen


def sparsify(
    model: nn.Module, counts: Sequence[int], backends: Sequence[str], seed: int = 0, device: torch.device | None = None
) -> list[SparseLayer]:
    """Give every prunable layer a random topology, stored by its own backend; else as ``sparse.sparsify``."""
    shapes = [tuple(module.weight.shape) for _, module in prunable(model)]
    drawn = (
        initial(shape, count, seed, index) for index, (shape, count) in enumerate(zip(shapes, counts, strict=True))
    )
    return place(model, drawn, backends, device)


def place(
    model: nn.Module, starts: Iterable[Initial], backends: Sequence[str], device: torch.device | None = None
) -> list[SparseLayer]:
    """Give every prunable layer what it starts with, stored by its own backend; else as ``sparse.sparsify``."""
    replace = {"masked": masked.replace, "sparse": sparse.replace}
    layers: list[SparseLayer] = [
        replace[backend](model, name, module, start, device)
        for (name, module), start, backend in zip(prunable(model), starts, backends, strict=True)
    ]
    if "sparse" in backends:
        sparse.keep_layout(model)
    return layers


def measure(module: Layer, count: int, shape: tuple[int, ...], device: torch.device) -> dict[str, float]:
    """Time forward and backward of one layer on both backends, in turns: median seconds by backend."""
    start = initial(tuple(module.weight.shape), count, seed=0, index=0)
    x = torch.randn(shape, device=device)
    trials: dict[str, Callable[[], None]] = {}
    for backend in (masked, sparse):
        dense = copy.deepcopy(module)
        holder = nn.Sequential(dense)
        layer = backend.replace(holder, "0", dense, start, device)
        trials[layer.backend] = _trial(holder, layer, _liked(x, layer.backend, isinstance(module, nn.Linear)))
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(1 + ROUNDS):
        for name, trial in trials.items():
            began = time.perf_counter()
            trial()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - began)
    return {name: median(times[1:]) for name, times in seconds.items()}  # the first round warms up, and compiles


def _trial(network: nn.Module, layer: SparseLayer, x: Tensor) -> Callable[[], None]:
    delta = torch.ones_like(network(x))

    def run() -> None:
        layer.weight.grad = None
        network(x.requires_grad_()).backward(delta)
        layer.confine_gradient()

    return run


def _liked(x: Tensor, backend: str, linear: bool) -> Tensor:
    """Lay a batch out as a backend likes it: batch-innermost, or channels last for dense convolutions."""
    if backend == "sparse" and not linear:
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if backend == "sparse":
        return x.movedim(-1, 0).contiguous().movedim(0, -1)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def check_kernels(model: nn.Module, device: torch.device) -> None:
    """Refuse sparse layers on a GPU that has no kernel for them.

    Raises:
        ConfigError: the network has one.
    """
    without = [(name, module) for name, module in prunable(model) if not has_kernel(module, device)]
    if without and isinstance(without[0][1], nn.Linear):
        raise ConfigError(NO_TRITON)
    if without:
        raise ConfigError(
            f"backend=sparse has no kernel for convolutions on a GPU, and the network has one ({without[0][0]}): "
            "set backend=masked, which is faster there, or device=cpu"
        )


def has_kernel(module: Layer, device: torch.device) -> bool:
    """Return whether a sparse layer may be computed on a device: on CUDA, whether by compiled kernels."""
    if device.type == "cpu":
        return True
    return isinstance(module, nn.Linear) and (device.type != "cuda" or find_spec("triton") is not None)


def _key(module: Layer, count: int, shape: tuple[int, ...], device: torch.device) -> str:
    """Name what a measurement depends on; densities are told apart by two digits."""
    density = f"{count / module.weight.numel():.1e}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    machine = f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{module} of {'x'.join(map(str, shape))} at {density} on {machine}"


def processor() -> str:
    """Name the processor, as Linux tells it or as the platform does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _known(cache: Path) -> dict[str, dict[str, float]]:
    """Read earlier measurements; what is damaged, or of others, is measured again."""
    try:
        own = not hasattr(os, "geteuid") or cache.stat().st_uid in (0, os.geteuid())
        found = json.loads(content(cache, BYTES)) if own and not cache.stat().st_mode & stat.S_IWOTH else {}
        return {key: item for key, item in found.items() if _sound(item)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _sound(item: Any) -> bool:
    """Return whether a measurement is seconds of both backends."""
    return (
        isinstance(item, dict)
        and item.keys() == {"masked", "sparse"}
        and all(type(value) is float and 0 < value < math.inf for value in item.values())
    )


def _keep(cache: Path, known: dict[str, dict[str, float]]) -> None:
    """Keep measurements for other runs, where they can be."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(known, indent=1, sort_keys=True))
