"""Store every layer by a backend of its own, and find mixtures of backends that could be fast.

Below some sparsity a dense product is faster than a sparse one; where that is depends on the shape, the batch and the
machine. Layers are timed alone here; what is chosen from that is timed in whole steps (``run.choose``).
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from dstrun.layer.backend import backend, names
from dstrun.layer.geometry import Layer
from dstrun.layer.initial import Initial, initial
from dstrun.layer.interface import SparseLayer, prunable
from dstrun.system.trouble import ConfigError

ROUNDS = 3
LARGEST = 1 << 27
"""No layer of more connections is stored densely: its weights alone would take a gigabyte with their gradient."""


def able(model: nn.Module, device: torch.device) -> list[list[str]]:
    """List the backends that can train each prunable layer, which may lie on ``meta``; at least one."""
    found = []
    for name, module in prunable(model):
        here = [each for each in names() if not backend(each).lacks(name, module, device)]
        if module.weight.numel() > LARGEST:
            here = [each for each in here if not backend(each).dense] or here
        found.append(here)
    return found


def uniform(able: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return what each backend would store, by its name: all layers but those that it cannot train."""
    found: dict[str, list[str]] = {}
    for name in names():
        chosen = [name if name in here else here[0] for here in able]
        if name in chosen and chosen not in found.values():
            found[name] = chosen
    return found


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


def mixed(
    model: nn.Module,
    counts: Sequence[int],
    inputs: Sequence[tuple[int, ...]],
    device: torch.device,
    able: Sequence[Sequence[str]],
    limit: float,
) -> list[str] | None:
    """Return the backends of least time by layers timed alone, with a conversion where neighbors' layouts differ.

    Args:
        model: its prunable layers may lie on ``meta``, and are taken to follow one another.
        counts: active connections of each.
        inputs: the shape of each one's input, batch included.
        device: where it trains.
        able: what can train each.
        limit: seconds after which the search is given up, and ``None`` returned.
    """
    began, known = time.perf_counter(), dict[str, tuple[dict[str, float], dict[tuple[str, str], float]]]()
    ways: dict[str, tuple[float, list[str]]] = {}
    for index, ((_, module), count, shape) in enumerate(zip(prunable(model), counts, inputs, strict=True)):
        key = f"{index > 0} {module} {density(module, count)} {shape} {able[index]}"
        if key not in known:
            if time.perf_counter() - began > limit:
                return None
            first = index == 0  # nobody asks for the gradient of images
            known[key] = measure(module, count, shape, device, able[index], first), conversions(module, shape, device)
        seconds, turned = known[key]
        before, ways = ways or {"": (0.0, [])}, {}
        for name in able[index]:
            way = min(before, key=lambda past: before[past][0] + turned.get((past, name), 0.0))
            spent, chosen = before[way]
            ways[name] = spent + turned.get((way, name), 0.0) + seconds[name], [*chosen, name]
    return min(ways.values())[1] if ways else None


def measure(
    module: Layer,
    count: int,
    shape: tuple[int, ...],
    device: torch.device,
    backends: Sequence[str],
    first: bool = False,
) -> dict[str, float]:
    """Time forward and backward of one layer on some backends, in turns: median seconds by backend.

    Args:
        module: which may lie on ``meta``; it stays as it is.
        count: active connections.
        shape: of its input, which each backend gets in the layout it likes.
        device: where it trains.
        backends: that can train it.
        first: whether its input has no gradient.
    """
    start = initial(tuple(module.weight.shape), count, seed=0, index=0)
    x = torch.randn(shape, device=device)
    trials: dict[str, Callable[[], None]] = {}
    for name in backends:
        dense = copy.deepcopy(module)
        holder = nn.Sequential(dense)
        layer = backend(name).replace(holder, "0", dense, start, device)
        trials[name] = _trial(holder, layer, backend(name).laid_out(x, module).requires_grad_(not first))
    return _timed(trials, device)


def conversions(module: Layer, shape: tuple[int, ...], device: torch.device) -> dict[tuple[str, str], float]:
    """Time what it costs that a layer's input comes from another backend: its layout and its gradient's are changed."""
    x = torch.randn(shape, device=device)

    def turn(past: str, now: str) -> Callable[[], None]:
        there, here = backend(past).laid_out(x, module), backend(now).laid_out(x, module)

        def run() -> None:
            backend(now).laid_out(there, module)
            backend(past).laid_out(here, module)

        return run

    pairs = {f"{past} {now}": turn(past, now) for past, now in permutations(names(), 2)}
    return {(past, now): t for key, t in _timed(pairs, device).items() for past, now in [key.split(" ")]}


def _timed(trials: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Return the median seconds of each trial; they take turns, and the first round, which compiles, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(1 + ROUNDS):
        for name, trial in trials.items():
            wait(device)
            began = time.perf_counter()
            trial()
            wait(device)
            seconds[name].append(time.perf_counter() - began)
    return {name: median(times[1:]) for name, times in seconds.items()}


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _trial(network: nn.Module, layer: SparseLayer, x: Tensor) -> Callable[[], None]:
    delta = torch.ones_like(network(x))

    def run() -> None:
        layer.weight.grad = None
        network(x).backward(delta)
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


def density(module: Layer, count: int) -> str:
    """Return the share of active connections to two digits: what differs by less is as fast."""
    return f"{count / module.weight.numel():.1e}"


def processor() -> str:
    """Name the processor, as Linux tells it or as the platform does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
