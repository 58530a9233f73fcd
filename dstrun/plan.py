"""What a configuration would train and cost: layers, densities, parameters, FLOPs, memory. Trains nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn import functional

from dstrun.account.flops import FlopMeter, NetworkCost, flops_record, paper_ratio
from dstrun.account.memory import saved_for_backward, tensor_bytes
from dstrun.backend.sparse import replace
from dstrun.config import Experiment
from dstrun.grow.criterion import Cost
from dstrun.initial import Initial
from dstrun.layer import SparseLayer, prunable
from dstrun.method.procedure import Change, Products, Update
from dstrun.network import (
    allocate,
    count_network,
    count_trained,
    outline,
    parameters_record,
    trained,
    unmet,
    unpruned_record,
)
from dstrun.storage.activations import Kept
from dstrun.storage.packed import pack
from dstrun.storage.product import store, stored_weights
from dstrun.topology import Topology
from dstrun.train.precision import Precision

EMERGES = "this method finds its sparsity in training: active connections and FLOPs are upper bounds, those of dense"


def plan(experiment: Experiment) -> dict[str, Any]:
    """Plan a run: the record's ``parameters``, ``flops`` and ``memory`` groups, ``layers`` and ``not_prunable``.

    FLOPs of ``scope=global`` are those of the initial allocation, which training then changes; those of a method whose
    sparsity emerges are the most they can be. ``notes`` says what is known only after training, and where the
    sparsity is not the one asked for.

    Raises:
        ConfigError: parts that do not fit together.
    """
    cost = count_network(experiment)
    active = allocate(experiment, cost)
    memory = predict_memory(experiment, cost, active)
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
    notes = [EMERGES] if experiment.build("method").emerges else [unmet(experiment, cost, active)]
    built = count_network(experiment, trained(experiment, cost))
    return {
        "parameters": parameters_record(experiment, cost, built, active),
        "flops": plan_flops(experiment, cost, active),
        "memory": memory,
        "layers": layers,
        "not_prunable": unpruned_record(cost),
        "rules": rules(experiment),
        "notes": [note for note in notes if note],
    }


def rules(experiment: Experiment) -> dict[str, str]:
    """Say in words how many connections each layer gets, and among which connections the method ranks."""
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

    Runs that differ in their seed alone are counted once.

    Raises:
        ConfigError: parts that do not fit together.
    """
    alike: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        alike.setdefault(json.dumps({**experiment.config, "seed": None}), []).append(experiment)
    rows: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for run, *others in alike.values():
        cost = count_network(run)
        flops = plan_flops(run, cost, allocate(run, cost))["train"]
        for where in ((run.choices["model"], run.choices["dataset"]), ("all", "all")):
            row = rows.setdefault(where, {"model": where[0], "dataset": where[1], "runs": 0, "flops": 0})
            row["runs"] += 1 + len(others)
            row["flops"] += flops * (1 + len(others))
    return sorted(rows.values(), key=lambda row: row["model"] == "all")


def plan_flops(experiment: Experiment, cost: NetworkCost, active: list[int]) -> dict[str, Any]:
    """Count the FLOPs of the whole run by its schedule; and by the formula of the method's paper, per step."""
    config, dataset = experiment.config, experiment.build("dataset")
    schedule, grow, method = (experiment.build(name) for name in ("schedule", "grow", "method"))
    batch, per_epoch = config["batch_size"], dataset.train_images // config["batch_size"]
    epochs, sparsity = config["epochs"], config["sparsity"]
    nominal, steps = epochs * per_epoch, method.epochs(epochs, sparsity) * per_epoch
    sizes = [layer.size for layer in cost.layers]
    stretches = list(method.course(sizes, active, schedule, epochs, sparsity, per_epoch))
    update_steps = [s for s in schedule.steps(steps) if schedule.fraction_at(s, steps) > 0] if schedule else []
    backends = ["masked" if config["backend"] == "masked" else "sparse"] * len(active)
    split = config["microbatch"] not in (None, batch)
    meter = FlopMeter(cost, grow, backends, count_trained(experiment, trained(experiment, cost)), split)
    updates: list[Update] = []
    if update_steps and grow is not None:
        expected = getattr(grow, "expected", lambda count, size: min(count, size - count))
        changes = [
            Change(layer.name, count, 0, 0, expected(count, layer.size), 0.0)
            for layer, count in zip(cost.layers, active, strict=True)
        ]
        fresh = method.batch == "fresh" and grow.cost is not Cost.NONE
        drawn = batch if method.samples_per_class is None else method.samples_per_class * dataset.classes
        samples = drawn * len(update_steps) if fresh else 0
        replaces = not fresh and grow.cost is not Cost.NONE
        updates = [Update(update_steps[0], grow.cost, replaces, samples, changes)]
        meter.step(batch * len(update_steps), Products.of(active), updates)
        stretches = [(steps - len(update_steps), Products.of(active))]
    for length, products in stretches:
        meter.step(batch * length, products, [])
    if samples := method.scored_samples(dataset.classes):
        meter.scored(Update(0, Cost.DENSE_GRAD, False, samples, []), Products.of(sizes))
    for _, products in stretches[:-1]:
        meter.scored(Update(0, Cost.NONE, False, method.update_samples(dataset.classes), []), products)
    found = flops_record(cost, active, meter.train, meter.executed, batch * nominal)
    if schedule is not None and grow is not None:
        interval = schedule.interval_steps or schedule.recipe_interval_steps
        sparse, dense = cost.forward(active), cost.forward()
        ratio = paper_ratio(grow.cost, sparse, dense, interval, getattr(grow, "gamma", 1.0))
        found |= {"paper_interval_steps": interval, "train_x_dense_paper": ratio}
    return found | {"steps": steps, "updates": len(update_steps) if grow is not None else len(stretches) - 1}


def predict_memory(experiment: Experiment, cost: NetworkCost, active: list[int]) -> dict[str, Any]:
    """Predict the peak of a step by running one on fake tensors, which compute nothing.

    Temporaries inside kernels are unknown to it, so the measured peak is a little higher. ``backend=auto`` is predicted
    as ``sparse``: what it chooses is measured when a run starts.
    """
    from torch.distributed._tools.mem_tracker import MemTracker

    config, dataset = experiment.config, experiment.build("dataset")
    outlined = outline(experiment, trained(experiment, cost))
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.simplefilter("ignore")
        model = _frozen_as_buffers(_filled(outlined)).train()
        method = experiment.build("method")
        always = method.start == "sparse" and config["backend"] != "masked"
        layers = _hollow(model, active) if always else []
        store(model, layers, config["weights"])
        weights = stored_weights(model, layers)
        optimizer: Any = pack(experiment.build("optimizer").build(model.parameters()), weights, config)
        precision = Precision(config["precision"], torch.device("cpu"))
        kept = Kept(config["activations"], 0, model)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        indices = {id(t) for layer in layers for t in layer.index()}
        known = [t for t in [*model.parameters(), *model.buffers()] if id(t) not in indices]
        with tracker:
            for _ in range(2):  # optimizer state exists from the second step on
                x = torch.empty(config["batch_size"], *dataset.image)
                y = torch.empty(config["batch_size"], dtype=torch.int64)
                with saved_for_backward(known) as saved, precision.autocast():
                    with kept.forward(1):
                        logits = model(x)
                    loss = functional.cross_entropy(logits.float(), y)
                activations = sum(saved.values()) + kept.nbytes
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if method.grows_at_zero and hasattr(optimizer, "before_growth"):
                    for weight in weights:
                        optimizer.before_growth(weight)
                del loss, logits
                tracker.reset_mod_stats()
        peak = sum(totals["Total"] for totals in tracker.get_tracker_snapshot("peak").values())
        parameters = list(model.parameters())
        state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
        model_bytes, optimizer_bytes = tensor_bytes(known), tensor_bytes(state) + tensor_bytes(parameters)
    index = tensor_bytes(t for layer in layers for t in layer.index())
    if method.start != "none" and not layers:
        active = active if method.start == "sparse" else [layer.size for layer in cost.layers]
        index = 8 * sum(active) + 2 * sum(layer.size for layer in cost.layers)  # positions, two masks
    parts = model_bytes + optimizer_bytes + activations + index
    return {
        "peak_bytes": peak + index,
        "model_bytes": model_bytes,
        "optimizer_bytes": optimizer_bytes,
        "activation_bytes": activations,
        "transient_bytes": max(0, peak + index - parts),
        "index_bytes": index,
        "how": "predicted: one step on fake tensors; temporaries inside kernels excluded",
    }


def _filled(outlined: torch.nn.Module) -> torch.nn.Module:
    """Give an outline tensors of the same shapes on the CPU, which are fake ones here; initialization draws nothing."""
    made: dict[int, torch.Tensor] = {}
    for module in outlined.modules():
        plain = [(name, value) for name, value in vars(module).items() if isinstance(value, torch.Tensor)]
        for name, old in (*module._parameters.items(), *module._buffers.items(), *plain):
            if old is None:
                continue
            if id(old) not in made:
                new = torch.empty(old.shape, dtype=old.dtype)
                parameter = isinstance(old, torch.nn.Parameter)
                made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if parameter else new
            setattr(module, name, made[id(old)])
    return outlined


def _frozen_as_buffers(model: torch.nn.Module) -> torch.nn.Module:
    """Hold frozen parameters as buffers: the tracker asks every parameter for its gradient."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not parameter.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, parameter.data)
    return model


def _hollow(model: torch.nn.Module, active: list[int]) -> list[SparseLayer]:
    """Store the layers sparsely, with evenly spaced positions and weights that hold no numbers."""
    layers: list[SparseLayer] = []
    for (name, module), count in zip(prunable(model), active, strict=True):
        shape, size = tuple(module.weight.shape), module.weight.numel()
        with unset_fake_temporarily():
            topology = Topology(shape, torch.arange(count) * size // count)
            start = Initial(topology, torch.zeros(count), torch.zeros(shape[0]))
            layer = replace(model, name, module, start, torch.device("cpu"))
        for key, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, key, torch.nn.Parameter(torch.empty(parameter.shape)))
        layers.append(layer)
    return layers
