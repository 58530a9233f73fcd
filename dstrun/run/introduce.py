"""What a run says before it trains."""

from __future__ import annotations

import logging

from dstrun.config.schema import DEFAULTS
from dstrun.report.unpruned import not_prunable
from dstrun.run.blueprint import Blueprint
from dstrun.system.progress import say
from dstrun.train.device import device_name
from dstrun.train.training import Training

log = logging.getLogger("dstrun")


LESS = ("microbatch", "checkpointing", "activations", "weights", "rounding", "state")
"""Settings that let training hold less (``docs/memory.md``)."""


def introduce(blueprint: Blueprint, name: str, training: Training, resumed: int, mirror: str) -> None:
    """Print what is about to be trained, and what of it is not what the words ask for.

    Args:
        blueprint: of the experiment.
        name: of the run.
        training: put together.
        resumed: the step after which it continues.
        mirror: what W&B gets.
    """
    experiment, cost, data = blueprint.experiment, blueprint.cost, training.data
    config = experiment.config
    say(f"{name}  ({f'continues after step {resumed}' if resumed else 'new'})")
    say(
        f"  {experiment.choices['model']} on {experiment.choices['dataset']}: {data.train_count:,} images, "
        f"{training.total_steps:,} steps of {config['batch_size']}, {device_name(training.device)}, "
        f"{config['precision']}, W&B {mirror}"
    )
    active, sizes = training.active(), training.sizes
    densities = [a / s for a, s in zip(active, sizes, strict=True)] or [1.0]
    say(
        f"  {sum(active):,} of {sum(sizes):,} connections active, layers {min(densities):.2%} to {max(densities):.2%}; "
        f"{cost.forward(active) / cost.forward():.3f} x dense FLOPs an image; {_storage(config['backend'], training)}"
    )
    if config["init"] is not None:
        say(f"  starts from {config['init']}")
    if less := [f"{key}={config[key]}" for key in LESS if config[key] != DEFAULTS[key]]:
        say(f"  in less memory: {' '.join(less)}")
    if blueprint.unmet:
        log.warning("%s", blueprint.unmet)
    for line in not_prunable(blueprint.not_prunable, cost.parameters, cost.forward()):
        say(f"  {line}")
    if [layer.shape for layer in blueprint.built.layers] != [layer.shape for layer in cost.layers]:
        say(f"  trained in its place: {blueprint.option}")
    if training.device.type == "cpu" and config["precision"] != "fp32":
        log.warning("precision=%s is emulated on most CPUs and slower there than fp32", config["precision"])
    steps = [s for s in range(1, training.total_steps + 1) if training.procedure.updates_at(s)]
    if len(steps) == training.total_steps:
        say("  the topology is updated at every step")
    elif steps:
        say(f"  {len(steps)} topology updates, steps {steps[0]} to {steps[-1]}")
    elif experiment.choices["schedule"] is not None:
        log.warning(
            "the topology will never be updated: no update fits into %d steps; "
            "raise epochs or set schedule.updates or schedule.interval_steps",
            training.total_steps,
        )


def _storage(backend: str, training: Training) -> str:
    """Return how the layers are stored."""
    if backend == "masked":
        return "backend masked (simulated on dense storage)"
    kept = [layer.name for layer in training.layers if layer.backend == "masked"]
    if backend == "sparse":
        return "backend sparse"
    named = f": {', '.join(kept[:4])}{' ...' if len(kept) > 4 else ''}" if kept else ""
    return f"backend auto, {len(training.layers) - len(kept)} layers sparse, {len(kept)} masked{named}"
