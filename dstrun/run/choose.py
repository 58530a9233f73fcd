"""Choose the backend of every layer for ``backend=auto``: whole steps of a few candidates are timed, the fastest kept.

A candidate is the run itself on random images: network, loss, optimizer and storage formats as it would train, each
backend's conversions between layers and what it computes around them included. Candidates are: all layers on one
backend, for each of them; and one mixture (``backend.auto.mixed``), which has to be clearly faster.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import random
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch

from dstrun import __version__
from dstrun.backend.auto import able, density, mixed, processor, uniform, wait
from dstrun.config.identity import code
from dstrun.layer.backend import HOME, backend
from dstrun.layer.interface import prunable
from dstrun.run.blueprint import Blueprint
from dstrun.run.noise import Noise
from dstrun.system.bounded import content
from dstrun.system.free import free_bytes
from dstrun.system.progress import muted, say
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.whole import write_atomic
from dstrun.system.wording import in_seconds
from dstrun.train.graph import WARM
from dstrun.train.precision import likes_channels_last
from dstrun.train.training import Training

MIXED = "mixed"
LIMIT = 20.0
"""Seconds after which no further round of steps begins; and likewise no further layer is timed for a mixture."""
ROUNDS = (3, 9)
"""Of steps: at least, unless ``LIMIT`` is over, and at most."""
CLEAR, SURE = 1.1, 0.97
"""A candidate faster by ``CLEAR`` in every round needs no more; a mixture has to take at most ``SURE`` of the time of
the best other, in three of four rounds: of several that are as fast, one always seems faster."""
TURN = 0.05
"""Seconds of a turn, which has one step at least: others' threads still spin in the first."""
DENSE = 20
"""Bytes of a weight in dense storage: with gradient, two moments and two masks."""
BYTES = 1 << 24

STEP = (
    *("microbatch", "checkpointing", "label_smoothing", "powerprop", "step", "precision", "activations", "weights"),
    *("rounding", "state", "deterministic", "model", "method", "optimizer", "loss"),
)
"""Settings that an ordinary step depends on, besides those whose meaning ``_facts`` notes in other words."""

Build = Callable[[Blueprint, Any, list[str]], Training]
"""Puts together what trains a blueprint on images, with a backend for every layer."""


def choose(blueprint: Blueprint, device: torch.device, cache: Path, build: Build, ranks: Ranks = ALONE) -> list[str]:
    """Choose the backend of every prunable layer; nothing that the run depends on is changed.

    Args:
        blueprint: of the run.
        device: where it trains, set as the run sets it.
        cache: a JSON file of earlier choices; written to.
        build: puts a candidate together.
        ranks: the processes that share a batch; this one times its share alone, without exchanging gradients.
    """
    share = blueprint.experiment.config["batch_size"] // ranks.size
    here = able(blueprint.trained.model, device)
    whole = uniform(here)
    if len(whole) < 2:
        return next(iter(whole.values()), [])
    known, key = _known(cache), _key(blueprint, device, share)
    if not _fits(known.get(key), whole, here):
        say(f"backend=auto times training steps of {' and '.join(whole)}; the result is kept for similar runs")
        with _apart(device), muted():
            entry = _timed(_shared(blueprint, share), device, build, whole, here)
        if entry["seconds"].keys() < whole.keys():  # memory was short: it may not be next time
            return _best(entry, whole)[1]
        known[key] = entry
        _keep(cache, known)
    name, chosen = _best(known[key], whole)
    times = sorted((seconds, each) for each, seconds in known[key]["seconds"].items())
    say(f"backend=auto chooses {name} (a step: {', '.join(f'{each} {in_seconds(t)}' for t, each in times)})")
    return chosen


def _timed(
    blueprint: Blueprint, device: torch.device, build: Build, whole: Mapping[str, list[str]], here: list[list[str]]
) -> dict[str, Any]:
    """Time the candidates: ``seconds`` of a step by name, and the backends of the one that is ``mixed``, if any."""
    config = blueprint.experiment.config
    share, last = config["batch_size"], likes_channels_last(config["precision"], device)
    data = Noise(blueprint.dataset, 2 * share).open(device, share, config["seed"], ALONE, last)
    sizes = [module.weight.numel() for _, module in prunable(blueprint.trained.model)]
    made: dict[str, Training] = {}

    def add(name: str, backends: list[str]) -> None:
        """Put a candidate together and take its first steps, if there is memory for it."""
        dense = sum(size for size, chosen in zip(sizes, backends, strict=True) if backend(chosen).dense)
        peak = max((max(each.memory.peaks.values(), default=0) for each in made.values()), default=0)
        if made and DENSE * dense + 2 * peak > free_bytes(device.type):
            return
        with suppress(torch.OutOfMemoryError):
            made[name] = warmed(build(blueprint, data, backends))

    for name in sorted(whole, key=lambda each: sum(backend(b).dense for b in whole[each])):
        add(name, whole[name])
    together = config["microbatch"] or share
    inputs = [(together, *layer.sees) for layer in blueprint.cost.layers]
    found = None
    if len(made) > 1:
        found = mixed(blueprint.trained.model, blueprint.counts, inputs, device, here, LIMIT)
    if found is not None and found not in whole.values():
        add(MIXED, found)
    taken = compare({name: lambda training=training: turn(training) for name, training in made.items()})
    return {"seconds": in_proportion(taken), "layers": found if MIXED in made else None}


def warmed(training: Training) -> Training:
    """Run the first steps of a candidate, which compile kernels and claim memory; the memory of one is measured."""
    training.model.train()
    training.prepare()
    turn(training, 0.0)
    with training.memory.phase("step"):
        turn(training, 0.0)
    for _ in range(WARM if training.graphs else 0):
        turn(training, 0.0)
    return training


def turn(training: Training, least: float = TURN) -> float:
    """Run ordinary steps, one at least, until ``least`` seconds are over; return the median seconds of one."""
    updates = training.procedure.updates_at
    step = next((s for s in range(1, training.total_steps + 1) if not updates(s)), 1)
    taken: list[float] = []
    while not taken or sum(taken) < least:
        training.step = step - 1
        training.data.begin(step - 1)
        wait(training.device)
        began = time.perf_counter()
        training.take_step()
        wait(training.device)
        taken.append(time.perf_counter() - began)
    return median(taken)


def compare(
    turns: Mapping[str, Callable[[], float]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time candidates in turns until one is clearly the fastest, or for some rounds: seconds of each, one a round.

    Args:
        turns: each returns the seconds of one step.
        clock: tells when ``LIMIT`` is over.
    """
    names, began, taken = list(turns), clock(), dict[str, list[float]]({name: [] for name in turns})
    for number in range(ROUNDS[1]):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(turns[name]())
        if clock() - began > LIMIT or (number + 1 >= ROUNDS[0] and _is_clear(taken)):
            break
    return taken


def in_proportion(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median seconds of the first, and of others in proportion to its: compared round by round.

    The proportion of a mixture is the upper quartile over rounds to the best of the others.
    """
    base = next(iter(taken.values()))
    found = {name: _quantile(taken[name], base, 2) * median(base) for name in taken if name != MIXED}
    if MIXED in taken:
        best = min(found, key=found.__getitem__)
        found[MIXED] = _quantile(taken[MIXED], taken[best], 3) * found[best]
    return found


def _quantile(times: Sequence[float], base: Sequence[float], number: int) -> float:
    """Return a quartile of the proportions to others of the same rounds: 2 for the median."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    return quantiles(ratios, n=4, method="inclusive")[number - 1] if len(ratios) > 1 else ratios[0]


def _is_clear(taken: Mapping[str, Sequence[float]]) -> bool:
    best = min(taken, key=lambda name: median(taken[name]))
    others = chain.from_iterable(zip(taken[best], taken[name], strict=True) for name in taken if name != best)
    return all(other > CLEAR * fast for fast, other in others)


def _best(entry: Mapping[str, Any], whole: Mapping[str, list[str]]) -> tuple[str, list[str]]:
    """Return the name of the fastest candidate, and the backends of its layers."""
    seconds = entry["seconds"]
    name = min((each for each in seconds if each in whole), key=seconds.__getitem__)
    if seconds.get(MIXED, math.inf) <= SURE * seconds[name]:
        return MIXED, entry["layers"]
    return name, whole[name]


def _shared(blueprint: Blueprint, share: int) -> Blueprint:
    """Return the blueprint of what this process trains of a batch."""
    experiment = blueprint.experiment
    if experiment.config["batch_size"] == share:
        return blueprint
    return Blueprint(replace(experiment, config=experiment.config | {"batch_size": share}))


@contextmanager
def _apart(device: torch.device) -> Iterator[None]:
    """Leave random numbers as they were, and free what was built."""
    kept = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _key(blueprint: Blueprint, device: torch.device, share: int) -> str:
    """Name what a choice depends on: network and batch in words, and a digest of everything."""
    facts = _facts(blueprint, device, share)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    total = sum(layer.size for layer in blueprint.cost.layers)
    active = f"{sum(blueprint.counts) / total:.1e}"
    return f"{blueprint.experiment.choices['model']} at density {active}, batch {share}, {facts['processor']}: {digest}"


def _facts(blueprint: Blueprint, device: torch.device, share: int) -> dict[str, Any]:
    """Collect what a step's time depends on; of an option's numbers, only whether they are zero."""
    config = blueprint.experiment.config
    model, counts = blueprint.trained.model, blueprint.counts
    on_gpu = device.type == "cuda"
    return {
        **{key: config[key] if key == "model" else _kind(config[key]) for key in STEP},
        "layers": [f"{name} {m} {density(m, c)}" for (name, m), c in zip(prunable(model), counts, strict=True)],
        "network": [str(model), blueprint.shapes],
        "images": [*blueprint.dataset.image, blueprint.dataset.classes],
        "batch": [share, config["microbatch"]],
        "code": code(config),
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "threads": torch.get_num_threads(),
        "versions": [__version__, torch.__version__, version("numba")],
        "kernels": kernels(),
    }


def _kind(value: Any) -> Any:
    """Return an option without its numbers: of each, whether it is zero."""
    if isinstance(value, dict):
        return {key: _kind(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_kind(item) for item in value]
    return bool(value) if isinstance(value, int | float) else value


def kernels() -> str:
    """Digest the source of all backends."""
    folders = [Path(folder) for folder in import_module(HOME).__path__]
    files = sorted(chain.from_iterable(folder.rglob("*.py") for folder in folders))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _known(cache: Path) -> dict[str, Any]:
    """Read earlier choices; what is damaged, or of others, is measured again."""
    try:
        own = not hasattr(os, "geteuid") or cache.stat().st_uid in (0, os.geteuid())
        found = json.loads(content(cache, BYTES)) if own and not cache.stat().st_mode & stat.S_IWOTH else {}
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _fits(entry: Any, whole: Mapping[str, list[str]], here: Sequence[Sequence[str]]) -> bool:
    """Return whether an entry of the cache times every candidate, and its mixture can be built."""
    if not isinstance(entry, dict) or not isinstance(seconds := entry.get("seconds"), dict):
        return False
    if not whole.keys() <= seconds.keys() <= {*whole, MIXED}:
        return False
    if any(type(x) is not float or not 0 < x < math.inf for x in seconds.values()):
        return False
    layers = entry.get("layers")
    if MIXED not in seconds:
        return layers is None
    return isinstance(layers, list) and len(layers) == len(here) and all(map(lambda a, b: a in b, layers, here))


def _keep(cache: Path, known: dict[str, Any]) -> None:
    """Keep choices for other runs, where they can be."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(known, indent=1, sort_keys=True))
