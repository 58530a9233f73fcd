"""What a configuration would train and cost: layers, densities, parameters, FLOPs, memory. Trains nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from dstrun.account.flops import FlopMeter, flops_record, paper_ratio
from dstrun.config.experiment import Experiment
from dstrun.config.trust import OURS
from dstrun.layer.backend import backend
from dstrun.layer.criterion import Cost, expected_candidates
from dstrun.method.update import LayerUpdate, ProductCounts, Update
from dstrun.run.blueprint import Blueprint
from dstrun.run.predict import predict_memory
from dstrun.schedule import update_steps

SPARSITY_IS_LEARNED = (
    "this method finds its sparsity in training: active connections and FLOPs are upper bounds, those of dense"
)

UNSUPPORTED = (
    *(NotImplementedError, UnsupportedFakeTensorException, UnsupportedOperatorException),
    *(DataDependentOutputException, DynamicOutputShapeException),
)
"""What PyTorch raises where an operation needs numbers, or has no shapes to tell."""


def plan(experiment: Experiment) -> dict[str, Any]:
    """Plan a run: the record's ``parameters``, ``flops`` and ``memory`` groups, ``layers`` and ``not_prunable``.

    FLOPs of ``scope=global`` are those of the initial allocation, which training then changes; those of a method whose
    sparsity emerges are the most they can be. ``notes`` says what is known only after training, and where the
    sparsity is not the one asked for.

    Raises:
        ConfigError: parts that do not fit together.
    """
    blueprint = Blueprint(experiment)
    cost, active = blueprint.cost, blueprint.counts
    layers = [
        {
            "name": layer.name,
            "shape": "x".join(map(str, layer.shape)),
            "connections": layer.size,
            "active": count,
            "density": count / layer.size,
            "macs": layer.macs,
            "active_macs": count * layer.uses,
        }
        for layer, count in zip(cost.layers, active, strict=True)
    ]
    notes = [SPARSITY_IS_LEARNED] if blueprint.method.sparsity_is_learned else [blueprint.unmet]
    return {
        "parameters": blueprint.parameters(active),
        "flops": plan_flops(blueprint),
        "memory": planned_memory(experiment),
        "layers": layers,
        "not_prunable": blueprint.not_prunable,
        "rules": rules(experiment),
        "notes": [note for note in notes if note],
    }


def planned_memory(experiment: Experiment) -> dict[str, Any]:
    """Predict memory; where PyTorch cannot run the network on tensors without data, say so in ``how``.

    Of a user's own option any error may mean that; of shipped ones alone, other errors than PyTorch's ``UNSUPPORTED``
    are faults of ours, and are raised.

    Raises:
        ConfigError: parts that do not fit together.
    """
    try:
        return predict_memory(experiment)
    except (NotImplementedError, RuntimeError, AssertionError, TypeError) as error:
        if not isinstance(error, UNSUPPORTED) and all(_is_shipped(node) for node in experiment.config.values()):
            raise
        why = str(error).strip().partition("\n")[0]
        return {"peak_bytes": None, "at_peak": {}, "how": f"cannot be predicted ({type(error).__name__}: {why})"}


def _is_shipped(node: Any) -> bool:
    """Return whether a part of a configuration is no option of a user's own."""
    return not isinstance(node, dict) or str(node.get("_target_", OURS)).startswith(OURS)


def rules(experiment: Experiment) -> dict[str, str]:
    """Describe how many connections each layer gets, and among which connections the method ranks."""
    config, choices, method = experiment.config, experiment.choices, experiment.build("method")
    if method.start == "none" or not method.budget:
        return {}
    allocation, scope = experiment.build("allocation"), config["scope"]
    given = f"{choices['allocation']}, {allocation.words}" if allocation else "none, scores decide among all layers"
    if not method.parts and method.start == "sparse":
        return {"allocation": given}
    among = {"layer": "connections are ranked in each layer", "global": "all layers are ranked together"}[scope]
    drift = ", so that their counts drift" if scope == "global" and allocation else ""
    return {"allocation": given, "scope": f"{scope}, {among}{drift}"}


def plan_sweep(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Count the FLOPs to train the runs of a sweep: a row for each network and data set, and one for all.

    Raises:
        ConfigError: parts that do not fit together.
    """
    rows: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for run, *others in _but_for_the_seed(experiments):
        flops = plan_flops(Blueprint(run))["train"]
        for where in ((run.choices["model"], run.choices["dataset"]), ("all", "all")):
            row = rows.setdefault(where, {"model": where[0], "dataset": where[1], "runs": 0, "flops": 0})
            row["runs"] += 1 + len(others)
            row["flops"] += flops * (1 + len(others))
    return sorted(rows.values(), key=lambda row: row["model"] == "all")


def plan_runs(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Count the FLOPs of the runs of a sweep: a row for all seeds of one, with the words in which the runs differ.

    Raises:
        ConfigError: parts that do not fit together.
    """
    parts = [*_but_for_the_seed(experiments)]
    words: list[dict[str, str]] = []
    for run, *_ in parts:
        # a protocol is that of the method, whose word is another one
        pairs = (word.removesuffix(f"/{run.choices['method']}").partition("=") for word in run.command)
        words.append({key: value for key, _, value in pairs})
    keys = [key for key in dict.fromkeys(key for said in words for key in said) if key != "seed"]
    varying = [key for key in keys if len({said.get(key) for said in words}) > 1]
    rows = []
    for said, alike in zip(words, parts, strict=True):
        flops = plan_flops(Blueprint(alike[0]))
        row = {key: said.get(key, "") for key in varying} | {"runs": len(alike)}
        rows.append(row | {key: flops[key] for key in ("train", "train_x_dense", "inference_x_dense")})
    return rows


def _but_for_the_seed(experiments: Sequence[Experiment]) -> Iterable[list[Experiment]]:
    """Return the runs of a sweep in lists of those that differ in their seed alone, and so cost the same."""
    alike: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        alike.setdefault(json.dumps({**experiment.config, "seed": None}), []).append(experiment)
    return alike.values()


def plan_flops(blueprint: Blueprint) -> dict[str, Any]:
    """Count the FLOPs of the whole run by its schedule; and by the formula of the method's paper, per step."""
    experiment, dataset, method = blueprint.experiment, blueprint.dataset, blueprint.method
    config, cost, active = experiment.config, blueprint.cost, blueprint.counts
    schedule, grow = (experiment.build(name) for name in ("schedule", "grow"))
    batch, per_epoch = config["batch_size"], dataset.train_images // config["batch_size"]
    epochs, sparsity = config["epochs"], config["sparsity"]
    nominal, steps = epochs * per_epoch, method.epochs(epochs, sparsity) * per_epoch
    sizes = [layer.size for layer in cost.layers]
    stretches = list(method.course(sizes, active, schedule, epochs, sparsity, per_epoch))
    updating = update_steps(schedule, steps) if schedule else []
    split = config["microbatch"] not in (None, batch)
    skips = [backend(name).skips_zeros for name in blueprint.backends]
    meter = FlopMeter(cost, grow, skips, blueprint.built, split)
    updates: list[Update] = []
    pairs = zip(active, sizes, strict=True)
    candidates = [] if grow is None else [expected_candidates(grow, count, size) for count, size in pairs]
    if updating and grow is not None:
        changes = [
            LayerUpdate(layer.name, count, 0, 0, scored, 0.0)
            for layer, count, scored in zip(cost.layers, active, candidates, strict=True)
        ]
        fresh = 0 if grow.cost is Cost.NONE else method.fresh_samples(batch, dataset.classes)
        replaces = grow.cost is not Cost.NONE and not fresh
        updates = [Update(updating[0], grow.cost, replaces, fresh * len(updating), changes)]
        meter.step(batch * len(updating), ProductCounts.of(active), updates)
        stretches = [(steps - len(updating), ProductCounts.of(active))]
    for length, products in stretches:
        meter.step(batch * length, products, [])
    if samples := method.scored_samples(dataset.classes):
        meter.scored(Update(0, Cost.DENSE_GRAD, False, samples, []), ProductCounts.of(sizes))
    for _, products in stretches[:-1]:
        meter.scored(Update(0, Cost.NONE, False, method.update_samples(dataset.classes), []), products)
    found = flops_record(cost, active, meter.train, meter.executed, batch * nominal)
    if schedule is not None and grow is not None:
        interval = schedule.interval_steps or schedule.recipe_interval_steps
        sparse, dense = cost.forward(active), cost.forward()
        by_paper = getattr(grow, "paper_candidates", None)
        scored = cost.forward(candidates) if by_paper is None else by_paper * sparse
        ratio = paper_ratio(grow.cost, sparse, dense, interval, scored)
        found |= {"paper_interval_steps": interval, "train_x_dense_paper": ratio}
    return found | {"steps": steps, "updates": len(updating) if grow is not None else len(stretches) - 1}
