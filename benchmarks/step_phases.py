"""Where a training step of sparse layers goes: time, bytes of tensors and bandwidth of every compiled phase.

python benchmarks/step_phases.py resnet56 --sparsity 0.98 [--apart] [--batch 128] [--steps 9] [--threads 2]

Bytes are those of all arrays that a phase is called with, each counted once, as if nothing were read twice and no cache
kept anything. The bandwidth is these bytes by the time of the phase. ``--apart`` computes
normalization, additions and ReLU one by one, as PyTorch's modules do. What is not compiled here, PyTorch's functions
and Python, is the rest. Medians over steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dstrun.backend.sparse import affine, normalization, pooling
from dstrun.backend.sparse.kernel import fast, layout
from dstrun.backend.sparse.layer import sparsify
from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.layer.interface import prunable
from dstrun.report.format import Column, render
from dstrun.system import heap

PHASES: dict[str, list[tuple[Any, str]]] = {
    "product forward": [(fast, "forward")],
    "input gradient": [(fast, "input_gradient")],
    "weight gradient": [(fast, "weight_gradient")],
    "batch statistics": [(normalization, "moments")],
    "normalization forward, and again": [(affine, "normalize"), (affine, "layer_normalize")],
    "normalization backward": [(affine, "normalize_backward"), (affine, "layer_normalize_backward")],
    "pooling": [(pooling, "maximum"), (pooling, "maximum_backward")],
    "change of layout": [(layout, "transpose_planes")],
}
COLUMNS = [
    Column("phase"),
    Column("calls", kind="number", digits=0),
    Column("ms", "ms a step", "number", 1),
    Column("mb", "MB", "number", 0),
    Column("rate", "GB/s", "number", 0),
]


def size(value: Any) -> int:
    """Count the bytes of the tensors and arrays of a call, or of its result."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.nbytes
    return sum(map(size, value)) if isinstance(value, tuple | list) else 0


def watch(found: dict[str, list[float]]) -> None:
    """Make every phase add its calls, seconds and bytes."""
    for phase, functions in PHASES.items():
        for module, name in functions:
            setattr(module, name, watched(getattr(module, name), found[phase]))


def watched(function: Any, to: list[float]) -> Any:
    def call(*args: Any) -> Any:
        began = time.perf_counter()
        made = function(*args)
        to[1] += time.perf_counter() - began
        to[0] += 1
        to[2] += size(args) + size(made)
        return made

    return call


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", nargs="?", default="resnet56")
    made.add_argument("--sparsity", type=float, default=0.98)
    made.add_argument("--apart", action="store_true")
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--steps", type=int, default=9)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = made.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    heap.keep_freed()
    composed = compose([f"model={asked.model}", "dataset=cifar10"])
    model = Experiment(composed.config, composed.choices).build("model").build((3, 32, 32), 10)
    counts = [max(1, round(module.weight.numel() * (1 - asked.sparsity))) for _, module in prunable(model)]
    sparsify(model, counts)
    if asked.apart:
        normalization._defers = lambda x: False
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.randn(asked.batch, 3, 32, 32), torch.randint(10, (asked.batch,))
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0])
    watch(found)
    steps: dict[str, list[list[float]]] = defaultdict(list)
    for step in range(asked.steps + 3):
        for counters in found.values():
            counters[:] = [0, 0.0, 0]
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        whole = time.perf_counter() - began
        if step >= 3:
            for phase, counters in found.items():
                steps[phase].append(list(counters))
            steps["Python, PyTorch"].append([0, whole - sum(seconds for _, seconds, _ in found.values()), 0])
            steps["whole step"].append([0, whole, 0])
    rows = []
    for phase, counted in steps.items():
        calls, seconds, moved = (statistics.median(column) for column in zip(*counted, strict=True))
        row = {"phase": phase, "ms": 1e3 * seconds}
        if calls:
            row |= {"calls": int(calls), "mb": moved / 1e6, "rate": moved / 1e9 / seconds}
        if calls or phase not in PHASES:
            rows.append(row)
    print(render(rows, COLUMNS))


if __name__ == "__main__":
    main()
