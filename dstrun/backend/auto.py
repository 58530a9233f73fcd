"""Store every layer by the backend that trains it fastest here: measured once per shape and density, and cached.

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
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.layer.backend import backend, names
from dstrun.layer.geometry import Layer
from dstrun.layer.initial import Initial, initial
from dstrun.layer.interface import SparseLayer, prunable
from dstrun.system.bounded import content
from dstrun.system.trouble import ConfigError
from dstrun.system.whole import write_atomic

ROUNDS = 5
BYTES = 1 << 24
LARGEST = 1 << 27
"""No layer of more connections is stored densely: its weights alone would take a gigabyte with their gradient."""


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
        The fastest for each, of those that can train it.
    """
    known = _known(cache)
    chosen = []
    for (name, module), count, shape in zip(prunable(model), counts, inputs, strict=True):
        able = [each for each in names() if not backend(each).lacks(name, module, device)]
        if module.weight.numel() > LARGEST:
            able = [each for each in able if not backend(each).dense] or able
        if len(able) > 1:
            key = _key(module, count, shape, device)
            if not known.get(key, {}).keys() >= {*able}:
                known[key] = measure(module, count, shape, device, able)
                _keep(cache, known)
            able = sorted(able, key=known[key].__getitem__)
        chosen.append(able[0])
    return chosen


def sparsify(
    model: nn.Module, counts: Sequence[int], backends: Sequence[str], seed: int = 0, device: torch.device | None = None
) -> list[SparseLayer]:
    """Store every prunable layer by its own backend, with a random topology; else as ``sparse.layer.sparsify``."""
    shapes = [tuple(module.weight.shape) for _, module in prunable(model)]
    drawn = (
        initial(shape, count, seed, index) for index, (shape, count) in enumerate(zip(shapes, counts, strict=True))
    )
    return place(model, drawn, backends, device)


def place(
    model: nn.Module, starts: Iterable[Initial], backends: Sequence[str], device: torch.device | None = None
) -> list[SparseLayer]:
    """Store every prunable layer by its own backend, with what it starts with; else as ``sparse.layer.sparsify``."""
    layers = [
        backend(chosen).replace(model, name, module, start, device)
        for (name, module), start, chosen in zip(prunable(model), starts, backends, strict=True)
    ]
    for chosen in dict.fromkeys(backends):
        backend(chosen).finish(model)
    return layers


def measure(
    module: Layer, count: int, shape: tuple[int, ...], device: torch.device, backends: Sequence[str]
) -> dict[str, float]:
    """Time forward and backward of one layer on some backends, in turns: median seconds by backend."""
    start = initial(tuple(module.weight.shape), count, seed=0, index=0)
    x = torch.randn(shape, device=device)
    trials: dict[str, Callable[[], None]] = {}
    for name in backends:
        dense = copy.deepcopy(module)
        holder = nn.Sequential(dense)
        layer = backend(name).replace(holder, "0", dense, start, device)
        trials[name] = _trial(holder, layer, backend(name).laid_out(x, module))
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


def check_kernels(model: nn.Module, name: str, device: torch.device) -> None:
    """Check that a backend can train every layer on a device.

    Raises:
        ConfigError: it has no kernel for one.
    """
    for layer, module in prunable(model):
        if lack := backend(name).lacks(layer, module, device):
            raise ConfigError(lack)


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
    """Return whether a measurement is seconds by backend."""
    return isinstance(item, dict) and all(type(x) is float and 0 < x < math.inf for x in item.values())


def _keep(cache: Path, known: dict[str, dict[str, float]]) -> None:
    """Keep measurements for other runs, where they can be."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(known, indent=1, sort_keys=True))
