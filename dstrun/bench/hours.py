"""Estimate how long a run takes on this machine: time some of its steps on noise, and multiply by their number."""

from __future__ import annotations

import time
from itertools import chain, islice
from statistics import median
from typing import Any

from dstrun.bench.kernel import waiter
from dstrun.config.experiment import Experiment
from dstrun.run.assemble import assemble
from dstrun.run.noise import NoiseExperiment
from dstrun.system.free import free_bytes
from dstrun.system.trouble import ConfigError
from dstrun.train.device import device_name, pick_device
from dstrun.train.training import Training

LIMIT = 20.0
"""Seconds after which no further step is taken."""

COUNTS = ((False, 10), (True, 3))
"""Steps taken at most: ordinary ones, and updates."""

WARM = 3
"""Ordinary ones that do not count, nor does the first update: kernels are compiled and memory is claimed in them."""


def measure_hours(experiment: Experiment, plan: dict[str, Any]) -> dict[str, Any]:
    """Measure seconds of a step and of an update, and predict the hours of training, evaluation excluded.

    Args:
        experiment: checked; its images are replaced by noise.
        plan: of it: its number of steps and updates, and its predicted memory.

    Returns:
        ``step_seconds``, ``update_seconds`` (of an ordinary step where no update was reached), ``hours``, ``device``.

    Raises:
        ConfigError: it would need more memory than is free.
    """
    device = pick_device(experiment.config["device"])
    need, free = plan["memory"]["peak_bytes"], free_bytes()
    if device.type == "cpu" and need is not None and need > free:
        raise ConfigError(
            f"--time would take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: use a smaller batch_size"
        )
    training = assemble(NoiseExperiment(experiment.config, experiment.choices), device)
    training.model.train()
    training.prepare()
    wait = waiter(device)
    seconds: dict[str, list[float]] = {"step": [], "update": []}
    began = time.perf_counter()
    for step in _steps(training):
        if seconds["step"] and time.perf_counter() - began > LIMIT:
            break
        training.step = step - 1
        training.data.begin(step - 1)
        wait()
        start = time.perf_counter()
        training.take_step()
        wait()
        kind = "update" if training.procedure.updates_at(step) else "step"
        seconds[kind].append(time.perf_counter() - start)
    steps = seconds["step"][WARM:] or seconds["step"] or seconds["update"]
    updates = seconds["update"][1:] or seconds["update"] or steps
    step, update, flops = median(steps), median(updates), plan["flops"]
    total = (flops["steps"] - flops["updates"]) * step + flops["updates"] * update
    return {"step_seconds": step, "update_seconds": update, "hours": total / 3600, "device": device_name(device)}


def _steps(training: Training) -> list[int]:
    """Return the steps to take: the first ones that are no updates, and the first updates among them."""
    steps = range(1, training.total_steps + 1)
    found = [islice((s for s in steps if bool(training.procedure.updates_at(s)) is kind), n) for kind, n in COUNTS]
    return sorted(chain(*found))
