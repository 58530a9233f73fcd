"""The lines that a run prints before it trains."""

from __future__ import annotations

import logging

from dstrun.config.schema import DEFAULTS
from dstrun.layer.backend import AUTO, described, is_dense, names
from dstrun.report.unpruned import not_prunable
from dstrun.run.blueprint import Blueprint
from dstrun.system.progress import say
from dstrun.system.wording import counted, fixed
from dstrun.train.device import device_name
from dstrun.train.training import Training

log = logging.getLogger("dstrun")


LESS = ("microbatch", "checkpointing", "activations", "weights", "rounding", "state")
"""Settings that let training hold less (``docs/memory.md``)."""


def introduce(blueprint: Blueprint, name: str, training: Training, resumed: int, shown: str) -> None:
    """Print what is about to be trained, and where it differs from what was configured.

    Args:
        blueprint: of the experiment.
        name: of the run.
        training: put together.
        resumed: the step after which it continues.
        shown: which trackers show it, and how.
    """
    experiment, cost, data = blueprint.experiment, blueprint.cost, training.data
    config = experiment.config
    say(f"{name}  ({f'continues after step {resumed}' if resumed else 'new'})")
    say(
        f"  {experiment.choices['model']} on {experiment.choices['dataset']}: {data.train_count:,} images, "
        f"{training.total_steps:,} steps of {config['batch_size']}, {device_name(training.device)}, "
        f"{config['precision']}, {shown}"
    )
    active, sizes = training.active(), training.sizes
    percents = [100 * a / s for a, s in zip(active, sizes, strict=True)] or [100.0]
    share = cost.forward(active) / cost.forward()
    say(
        f"  {sum(active):,} of {sum(sizes):,} connections active, "
        f"layers {fixed(min(percents), 2)}% to {fixed(max(percents), 2)}%; "
        f"{fixed(share, 3)} x dense FLOPs per image; {_storage(config['backend'], training)}"
    )
    if config["init"] is not None:
        say(f"  starts from {config['init']}")
    if less := [f"{key}={config[key]}" for key in LESS if config[key] != DEFAULTS[key]]:
        say(f"  saving memory: {' '.join(less)}")
    if blueprint.unmet:
        log.warning("%s", blueprint.unmet)
    for line in not_prunable(blueprint.not_prunable, cost.parameters, cost.forward()):
        say(f"  {line}")
    if [layer.shape for layer in blueprint.built.layers] != [layer.shape for layer in cost.layers]:
        say(f"  trains instead: {blueprint.option}")
    if training.device.type == "cpu" and config["precision"] != "fp32":
        log.warning("precision=%s is emulated on most CPUs and slower there than fp32", config["precision"])
    steps = [s for s in range(1, training.total_steps + 1) if training.procedure.updates_at(s)]
    if len(steps) == training.total_steps:
        say("  the topology is updated at every step")
    elif steps:
        where = f"steps {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f"step {steps[0]:,}"
        say(f"  {counted(len(steps), 'topology update')}, {where}")
    elif experiment.choices["schedule"] is not None:
        log.warning(
            "the topology will never be updated: no update fits into %d steps; "
            "raise epochs or set schedule.updates or schedule.interval_steps",
            training.total_steps,
        )


def _storage(chosen: str, training: Training) -> str:
    """Return how the layers are stored; of those that ``auto`` stores densely, which."""
    if chosen != AUTO:
        return f"backend {described(chosen)}"
    kept = {name: [layer.name for layer in training.layers if layer.backend == name] for name in names()}
    if len(used := [name for name in kept if kept[name]]) == 1:
        return f"backend {AUTO}: {described(used[0])}"
    parts = []
    for name in sorted(kept, key=is_dense):
        named = f": {', '.join(kept[name][:4])}{' ...' if len(kept[name]) > 4 else ''}"
        named = named if is_dense(name) and kept[name] else ""
        parts.append(f"{len(kept[name])} {'' if parts else 'layers '}{name}{named}")
    return f"backend {AUTO}, {', '.join(parts)}"
