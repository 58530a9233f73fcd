"""``dstrun bench infer``: forward passes of sparse networks on the CPU, compared with dense ones.

``sparse`` computes the active connections alone; ``dense`` is PyTorch, which is what a masked network computes, too;
``onnxruntime`` the graph as ``dstrun weights`` writes it. All have the same weights, see the same batch as it comes,
and their outputs are compared before they are timed. A pass that is short is taken several times, and timed as one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.backend.auto import sparsify
from dstrun.bench.arguments import Infer
from dstrun.bench.measure import rows, turns
from dstrun.bench.result import machine
from dstrun.config.composition import compose
from dstrun.run.assemble import build_model
from dstrun.run.blueprint import Blueprint
from dstrun.run.onnx import INPUT, graph
from dstrun.run.shipping import library
from dstrun.system.progress import muted, say

CPU = torch.device("cpu")
LEAST = 0.005
"""Seconds that are timed as one: below it, clock and dispatch would be measured."""
MORE = {"mlp": ["model.hidden=[1024,1024]"]}
"""Words of a network besides its name: an MLP large enough for its layers to take most of the time."""

Pass = Callable[[], object]


def measure(settings: Infer) -> Iterator[list[dict[str, Any]]]:
    """Time every network at every sparsity; yields the rows of each."""
    runtime = library("onnxruntime")
    words = {name: _words(name, settings, settings.sparsity[0]) for name in settings.networks if "-" not in name}
    for one in words.values():
        compose(one)
    where = machine("cpu", settings.threads)
    for name in settings.networks:
        for sparsity in settings.sparsity:
            say(f"{name} at {100 * sparsity:g}%")
            dense, sparse, image = pair(name, settings, sparsity)
            session = _session(runtime, dense, image)
            found: list[dict[str, Any]] = []
            for batch in settings.batches:
                case = {"bench": "infer", "network": name, "sparsity": sparsity, "batch": batch}
                case |= {"allocation": settings.allocation}
                x = torch.randn(batch, *image, generator=torch.Generator().manual_seed(batch))
                timed = _timed(passes(dense, sparse, session, x), settings)
                found += [{**case, "pass": "forward", **row, **where} for row in rows(timed)]
            yield found


def pair(name: str, settings: Infer, sparsity: float) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """Build a network twice with the same weights, dense and sparse, and return the shape of a sample besides."""
    made = []
    for backend in ("masked", "sparse"):
        if "-" in name:
            inputs, outputs = map(int, name.split("-"))
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(inputs, outputs))
            sparsify(model, [round((1 - sparsity) * inputs * outputs)], [backend])
            shape: tuple[int, ...] = (inputs,)
        else:
            with muted():
                blueprint = Blueprint(compose([*_words(name, settings, sparsity), f"backend={backend}"]))
                model, _ = build_model(blueprint, CPU, [backend] * len(blueprint.counts))
            shape = blueprint.dataset.image
        made.append(model.eval())
    return made[0], made[1], shape


def passes(dense: nn.Module, sparse: nn.Module, session: Any, x: Tensor) -> dict[str, Pass]:
    """Return a pass of each implementation.

    Raises:
        RuntimeError: they do not compute the same.
    """

    def of(model: nn.Module) -> Pass:
        def run() -> Tensor:
            with torch.inference_mode():
                return model(x)

        return run

    given = {INPUT: x.numpy()}
    made = {"dense": of(dense), "onnxruntime": lambda: session.run(None, given)[0], "sparse": of(sparse)}
    expected = made["dense"]()
    for name, run in made.items():
        if not torch.allclose(torch.as_tensor(run()), torch.as_tensor(expected), rtol=1e-3, atol=1e-4):
            raise RuntimeError(f"{name} computes different numbers than PyTorch")
    return made


def _timed(made: dict[str, Pass], settings: Infer) -> dict[str, dict[str, list[float]]]:
    """Time passes in turns, each as often as takes ``LEAST`` seconds: seconds of one."""

    def once(run: Pass, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        return (time.perf_counter() - start) / times

    often = {name: max(1, math.ceil(LEAST / min(once(run, 1) for _ in range(3)))) for name, run in made.items()}
    tasks = {name: lambda name=name, run=run: {"forward": once(run, often[name])} for name, run in made.items()}
    return turns(tasks, settings.rounds, settings.limit)


def _session(runtime: Any, dense: nn.Module, image: tuple[int, ...]) -> Any:
    """Open a network in ONNX Runtime, with as many threads as PyTorch has."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    model = graph(dense, torch.zeros(2, *image)).SerializeToString()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _words(name: str, settings: Infer, sparsity: float) -> list[str]:
    return [
        f"model={name}", *MORE.get(name, ()), "dataset=cifar10", "method=static", f"sparsity={sparsity:g}",
        f"allocation={settings.allocation}", "wandb=disabled",
    ]  # fmt: skip
