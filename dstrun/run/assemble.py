"""From a configuration to the objects of a training; with ``lifecycle``, the module that knows every package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dstrun.account.flops import FlopMeter
from dstrun.account.memory import MemoryMeter
from dstrun.backend.auto import check_kernels, sparsify
from dstrun.backend.synchronized import synchronize
from dstrun.config.experiment import Experiment
from dstrun.dataset.cache import cache_folder
from dstrun.layer.backend import AUTO, backend, names
from dstrun.layer.initial import scale_by_fan_in
from dstrun.layer.interface import SparseLayer
from dstrun.method.procedure import Setting
from dstrun.method.soft import powerprop
from dstrun.optimizer.decay import groups
from dstrun.run.blueprint import Blueprint
from dstrun.run.choose import choose
from dstrun.storage.packed import pack
from dstrun.storage.product import store, stored_weights
from dstrun.storage.recompute import Recompute, checkpoint
from dstrun.system.progress import doing, say
from dstrun.system.ranks import ALONE, Passes, Ranks
from dstrun.system.stream import stream
from dstrun.system.trouble import ConfigError
from dstrun.train.clock import Clock
from dstrun.train.device import make_deterministic
from dstrun.train.early import EarlyStop
from dstrun.train.precision import Precision, likes_channels_last, set_products, weights_innermost
from dstrun.train.training import Training


def pick_backends(blueprint: Blueprint, device: torch.device, ranks: Ranks = ALONE) -> list[str]:
    """Return the backend of every prunable layer; ``auto`` measures where it has not yet."""
    config, counts, model = blueprint.experiment.config, blueprint.counts, blueprint.trained.model
    chosen = config["backend"]
    if chosen != AUTO:
        check_kernels(model, chosen, device)
    for name in names() if chosen == AUTO else [chosen]:
        if device.type == "cpu":
            backend(name).announce(say)
    if chosen != AUTO:
        return [chosen] * len(counts)

    def build(shared: Blueprint, data: Any, backends: list[str]) -> Training:
        return put_together(shared, device, data, backends)

    return ranks.broadcast(lambda: choose(blueprint, device, cache_folder() / "backend.json", build, ranks))


def microbatch(config: dict[str, Any], model: nn.Module, ranks: Ranks) -> int | None:
    """Return how many samples a pass has, if not all that are here, and let normalization layers know of it.

    They normalize each pass by itself (Hoffer, Hubara, Soudry 2017); a step moves their running statistics as far as
    one whose batch takes a single pass.

    Raises:
        ConfigError: a process's share of the batch cannot be split so.
    """
    size, share = config["microbatch"], config["batch_size"] // ranks.size
    if size is None or size == share:
        return None
    if share % size:
        raise ConfigError(f"microbatch={size} must divide {share}, the samples of a batch in each process")
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (size / share)
    return size


def assemble(
    experiment: Experiment,
    device: torch.device,
    backends: list[str] | None = None,
    ranks: Ranks = ALONE,
    blueprint: Blueprint | None = None,
) -> Training:
    """Build everything a run trains with.

    Args:
        experiment: checked.
        device: where it trains.
        backends: of each prunable layer, where they were chosen before; else as ``backend`` says.
        ranks: the processes that train it together.
        blueprint: of the experiment, where there is one already.

    Raises:
        ConfigError: the data set is missing or damaged, or parts do not fit together.
    """
    config, blueprint = experiment.config, blueprint or Blueprint(experiment)
    set_device(config, device)
    blueprint.check()
    last = likes_channels_last(config["precision"], device)
    with doing(f"reading {experiment.choices['dataset']}"):
        data = blueprint.dataset.open(device, config["batch_size"], config["seed"], ranks, last)
    return put_together(blueprint, device, data, backends, ranks)


def set_device(config: dict[str, Any], device: torch.device) -> None:
    """Set this process to compute as a run does."""
    make_deterministic(device, config["threads"], config["deterministic"])
    set_products(config["precision"], device)


def put_together(
    blueprint: Blueprint, device: torch.device, data: Any, backends: list[str] | None, ranks: Ranks = ALONE
) -> Training:
    """Build what a run trains with, given its images (``assemble``)."""
    experiment, method = blueprint.experiment, blueprint.method
    config, seed = experiment.config, experiment.config["seed"]
    model, layers = build_model(blueprint, device, backends, ranks)
    precision = Precision(config["precision"], device)
    passes, recompute = Passes(microbatch(config, model, ranks)), Recompute()
    if config["checkpointing"] != "none":
        checkpoint(model, config["checkpointing"], recompute)
    store(model, layers, config["weights"])
    powerprop.reparametrize(model, config["powerprop"])
    method.reparametrize(model, layers)
    rate, loss = experiment.build("optimizer"), experiment.build("loss")
    optimizer = rate.build(groups(model, method.parameters(model, rate.weight_decay), rate.decay))
    optimizer = pack(optimizer, stored_weights(model, layers), config)
    for layer in layers:
        layer.optimizer, layer.ranks, layer.passes = optimizer, ranks, passes
    training = Training(
        model=model,
        layers=layers,
        optimizer=optimizer,
        rate=rate,
        precision=precision,
        data=data,
        device=device,
        seed=seed,
        label_smoothing=config["label_smoothing"],
        total_steps=method.epochs(config["epochs"], config["sparsity"]) * data.steps_per_epoch,
        nominal_steps=config["epochs"] * data.steps_per_epoch,
        flops=FlopMeter(
            *(blueprint.cost, experiment.build("grow"), [backend(layer.backend).skips_zeros for layer in layers]),
            built=blueprint.built,
            split=passes.size is not None,
        ),
        memory=MemoryMeter(model, optimizer, layers, device),
        clock=Clock(device),
        ranks=ranks,
        passes=passes,
        activations=config["activations"],
        early=EarlyStop(config["early_stop"], sum(blueprint.counts) if method.budget and method.exact else None),
        criterion=loss and loss.build(blueprint.dataset.classes, device),
        recompute=recompute,
        grows=method.grows_at_zero,
        graphs=config["step"] == "graph" and device.type == "cuda",
    )
    training.procedure = method.procedure(setting(blueprint, training))
    training.memory.method, training.memory.buckets = training.procedure.state, ranks.bucket_bytes
    return training


def build_model(
    blueprint: Blueprint, device: torch.device, backends: list[str] | None, ranks: Ranks = ALONE
) -> tuple[nn.Module, list[SparseLayer]]:
    """Build the network on its device, with the layers that the method starts from."""
    config, method = blueprint.experiment.config, blueprint.method
    seed, sparse = config["seed"], method.start == "sparse"
    if sparse:
        backends = backends or pick_backends(blueprint, device, ranks)
    torch.manual_seed(stream(seed, "model"))
    model = blueprint.build(bare=sparse)
    if weights_innermost(config, blueprint.experiment.choices["optimizer"], method.start, device, ranks):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    origin = None
    if blueprint.origin is not None:
        from dstrun.run.origin import Origin  # which puts its run together here

        origin = Origin(blueprint)
    if backends is not None and sparse:
        if origin is None:
            layers = sparsify(model, blueprint.counts, backends, seed, device)
        else:
            layers = origin.place(model, backends, device)
    else:
        if origin is not None:
            origin.load(model)
        elif config["initialization"] == "fan_in":
            scale_by_fan_in(model, seed)
        layers = backend(config["backend"]).wrap(model, device) if method.start == "all" else []
    model.to(device)
    synchronize(model, ranks, device)
    return model, layers


def setting(blueprint: Blueprint, training: Training) -> Setting:
    """Return what the method is given of a training."""
    experiment, method, data = blueprint.experiment, blueprint.method, training.data
    config = experiment.config
    return Setting(
        layers=training.layers,
        prune=experiment.build("prune"),
        grow=experiment.build("grow"),
        schedule=experiment.build("schedule"),
        scope=config["scope"],
        counts=blueprint.counts if method.allocates(config["scope"]) else None,
        budget=sum(blueprint.counts),
        sparsity=config["sparsity"],
        total_steps=training.total_steps,
        nominal_steps=training.nominal_steps,
        steps_per_epoch=data.steps_per_epoch,
        image=blueprint.dataset.image,
        classes=blueprint.dataset.classes,
        seed=training.seed,
        strict=config["strict"],
        model=training.model,
        optimizer=training.optimizer,
        fresh_pass=training.fresh_pass,
        overflowed=training.overflowed,
        samples=data.balanced,
        loss=training.loss,
        rate=training.rate.lr_at,
    )
