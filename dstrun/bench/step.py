"""``dstrun bench step``: whole training steps of a network, and the updates of its topology, backend by backend.

Everything is built as a run builds it; the images are noise. Each implementation takes a step and, where its topology
is dynamic, an update in every round, as it would in training: the update takes the optimizer step's place. Others'
layers (``peer``) keep their topology, and their weights have no momentum, which PyTorch has not for its matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count
from typing import Any, cast

import torch

from dstrun.bench.arguments import GROWS, Step
from dstrun.bench.kernel import waiter
from dstrun.bench.measure import Passes, interleaved, rows
from dstrun.bench.peer import NETWORKS, Peer
from dstrun.bench.result import machine
from dstrun.config.composition import compose
from dstrun.layer.interface import DenseLayer
from dstrun.run.assemble import assemble
from dstrun.run.noise import NoiseExperiment
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError
from dstrun.train.training import Training

STEPS, IMAGES = 20_000, 50_000
"""So long a run, on the images of CIFAR-10, that its learning rate and its share of replaced connections stay."""


def words(settings: Step, sparsity: float, device: str) -> dict[str, list[str]]:
    """Return the overrides of the run behind each implementation."""
    epochs = -(-STEPS * settings.batch // IMAGES)
    common = [f"model={settings.model}", "dataset=cifar10", f"batch_size={settings.batch}", f"epochs={epochs}"]
    common += [f"device={device}", "wandb=disabled"]
    if settings.threads is not None:
        common.append(f"threads={settings.threads}")
    made = {"dense": [*common, "method=dense"]}
    common += [f"sparsity={sparsity:g}", f"allocation={settings.allocation}", "schedule.interval_steps=2"]
    for backend in ("masked", "sparse"):
        for method in GROWS:
            made[f"{backend} {method}"] = [*common, f"method={method}", f"backend={backend}"]
    made["auto gse"] = [*common, "method=gse", "backend=auto"]
    return made | dict.fromkeys(NETWORKS, made["masked gse"])  # of which they take the place of the layers


def start(overrides: list[str], device: torch.device) -> tuple[Passes, Training]:
    """Assemble a run and measure the memory of its first steps; gives the passes of a round."""
    composed = compose(overrides)
    training = assemble(NoiseExperiment(composed.config, composed.choices), device)
    training.model.train()
    for number in range(1, 5):
        kind = "update" if training.procedure.updates_at(number) else "step"
        with training.memory.phase(kind) if number > 1 else nullcontext():
            training.take_step()
    passes = {"step": training.take_step}
    return (passes | {"update": training.take_step} if training.layers else passes), training


def start_peer(peer: Peer, overrides: list[str], device: torch.device) -> Passes:
    """Put a peer's layers into a masked network, and return its step; data, loss and the learning rate are a run's.

    Raises:
        ConfigError: it is not installed, or lacks a layer.
    """
    composed = compose(overrides)
    training = assemble(NoiseExperiment(composed.config, composed.choices), device)
    layers = peer.replace(training.model, cast("list[DenseLayer]", training.layers))
    training.model.train()
    theirs = {id(weight) for layer in layers for weight in layer.parameters()}
    ours = [weight for weight in training.model.parameters() if id(weight) not in theirs]
    weights = [weight for layer in layers for weight in layer.parameters()]
    options: dict[str, Any] = {"lr": training.rate.lr_at(0, STEPS), "foreach": False}  # which has no sparse matrices
    optimizers = [torch.optim.SGD(weights, **options)]
    optimizers += [torch.optim.SGD(ours, **options, momentum=0.9)] if ours else []
    numbers = count()

    def step() -> None:
        x, y = training.data.batch(next(numbers))
        training.loss(training.model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    step()
    return {"step": step}


def measure(settings: Step) -> Iterator[list[dict[str, Any]]]:
    """Time the steps and updates at every sparsity; yields the rows of each."""
    for sparsity in settings.sparsity:
        for overrides in words(settings, sparsity, settings.device).values():
            compose(overrides)
    where, device = machine(settings.device, settings.threads), torch.device(settings.device)
    for sparsity in settings.sparsity:
        case = {"bench": "step", "sparsity": sparsity, "batch": settings.batch}
        case |= {"model": settings.model, "allocation": settings.allocation}
        tasks: dict[str, Passes] = {}
        peaks: dict[str, dict[str, int]] = {}
        for name, overrides in words(settings, sparsity, settings.device).items():
            say(f"{settings.model} at {100 * sparsity:g}%: {name}")
            try:
                if name in NETWORKS:
                    tasks[name] = start_peer(NETWORKS[name], overrides, device)
                else:
                    tasks[name], training = start(overrides, device)
                    peaks[name] = training.memory.peaks
            except ConfigError as error:
                if not name.startswith("sparse") and name not in NETWORKS:  # which a GPU may have no kernel for
                    raise
                say(f"left out: {error}")
        timed = interleaved(tasks, settings.rounds, settings.limit, waiter(device))
        found = [row for row in rows(timed, "sparse gse") if row["pass"] != "sum"]
        yield [
            {**case, **row, "bytes": peaks.get(row["implementation"], {}).get(row["pass"]), **where} for row in found
        ]
