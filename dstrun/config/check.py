"""Check whether a configuration can be run: ranges and combinations, each refusal in one sentence. No torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from dstrun.config.option import Above, check_value
from dstrun.config.plain import is_plain
from dstrun.config.schema import DEFAULTS, SETTINGS, place
from dstrun.layer.backend import is_dense
from dstrun.layer.criterion import Cost
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.config.experiment import Experiment

LONGEST = 255
"""Bytes of a folder's name."""


def check(experiment: Experiment) -> None:
    """Check ranges and combinations.

    Raises:
        ConfigError: said in one sentence, naming both options where two do not go together.
    """
    config = experiment.config
    for name, item in SETTINGS.items():
        held, leaf = place(config, name)
        value, bound = held[leaf], item.metadata["bound"]
        for one in value if isinstance(value, list) else [value]:
            if bound is not None and one is not None:
                kind = Annotated[str if isinstance(one, str) else float, bound() if callable(bound) else bound]
                check_value(name.removesuffix(".mode"), one, kind)
    _check_trackers(config)
    if not is_plain("model", config["model"]["_target_"]):
        check_value("model.width", config["model"].get("width", 1.0), Annotated[float, Above(0)])
    _check_folders(config["experiment"], config["results"])
    method = experiment.build("method")
    _check_parts(method, experiment)
    for group in ("allocation", "schedule", "optimizer", "loss", "dataset"):
        experiment.build(group)
    if config["loss"] is not None and config["label_smoothing"]:
        chosen = f"label_smoothing={config['label_smoothing']:g} makes no sense with loss={experiment.choices['loss']}"
        raise ConfigError(f"{chosen}: it is a setting of the cross-entropy (loss=null)")
    _check_gradients(experiment)
    _check_activations(config)
    _check_storage(experiment)
    _check_early_stop(method, experiment)
    count = experiment.build("dataset").train_images
    if config["microbatch"] is not None and config["batch_size"] % config["microbatch"]:
        size, whole = config["microbatch"], config["batch_size"]
        near = max(n for n in range(1, min(size, whole) + 1) if whole % n == 0)
        raise ConfigError(f"microbatch={size} must divide batch_size={whole}: the nearest below is {near}")
    if config["batch_size"] > count:
        raise ConfigError(f"batch_size={config['batch_size']} must be at most {count}, the number of training images")


def starting(experiment: Experiment) -> Experiment:
    """Find the run that an experiment starts from, if it starts from one: which it is, is part of what a run is.

    Raises:
        ConfigError: there is no such run, or the two do not go together.
    """
    if experiment.config["init"] is None:
        return experiment
    from dstrun.run.origin import resolved  # which reads records: rooms below this one do

    return resolved(experiment)


def _check_folders(experiment: str, results: str) -> None:
    """Check that runs have a folder which every verb finds: none that is hidden."""
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", experiment) or ".." in experiment:
        raise ConfigError(f"experiment={experiment} must be a folder name: letters, digits, . _ + - and /")
    for part in experiment.split("/"):
        if part.startswith("."):
            raise ConfigError(
                f"experiment={experiment} is hidden, as {part} begins with a dot: write {part.strip('.')}"
            )
        if len(part.encode()) > LONGEST:
            raise ConfigError(f"experiment={part[:20]}... is {len(part.encode())} bytes long: at most {LONGEST} go")
    if not results or "\0" in results:
        raise ConfigError("results= must be a folder: results=. is the current one")


def _check_trackers(config: dict[str, Any]) -> None:
    """Check that ``none`` stands alone, and that no setting of W&B is said where it has no part."""
    chosen = config["tracker"]
    if "none" in chosen:
        raise ConfigError(f"tracker=[{','.join(chosen)}] makes no sense: none cannot be combined")
    if "wandb" not in chosen and config["wandb"]["mode"] in ("online", "offline"):
        raise ConfigError(f"wandb={config['wandb']['mode']} makes no sense with tracker={_listed(chosen)}: add wandb")
    said = [key for key, value in config["wandb"].items() if key != "mode" and value != DEFAULTS["wandb"][key]]
    if "wandb" not in chosen and said:
        value = config["wandb"][said[0]]
        raise ConfigError(f"wandb.{said[0]}={value} makes no sense with tracker={_listed(chosen)}: add wandb")


def _listed(chosen: list[str]) -> str:
    return f"[{','.join(chosen)}]" if len(chosen) > 1 else next(iter(chosen), "none")


def _check_parts(method: Any, experiment: Experiment) -> None:
    """Check that the method has the parts it works with, and no others, and the storage it needs."""
    config, name = experiment.config, experiment.choices["method"]
    sparsity, scope = config["sparsity"], config["scope"]
    if scope not in method.scopes:
        raise ConfigError(f"scope={scope} makes no sense with method={name}, {method.why}")
    _check_allocation(method, experiment)
    for group in ("prune", "grow", "schedule"):
        chosen = experiment.choices[group]
        if chosen is not None and group not in method.parts:
            raise ConfigError(f"{group}={chosen} makes no sense with method={name}, {method.why}")
        if chosen is None and group in method.parts:
            raise ConfigError(f"{group}=null makes no sense with method={name}, which needs one")
    if not method.budget and sparsity != 0:
        raise ConfigError(f"sparsity={sparsity:g} makes no sense with method={name}, {method.why}: leave it at 0")
    if method.grows_at_zero and sparsity == 0:
        raise ConfigError(f"sparsity=0 makes no sense with method={name}: no connection is left to grow")
    if method.start == "sparse" and config["initialization"] != "network":
        raise ConfigError(
            f"initialization={config['initialization']} makes no sense with method={name}, which always uses it"
        )
    dense = is_dense(config["backend"])
    needed = method.dense or ("which starts dense" if method.start == "all" else "")
    if needed and not dense:
        raise ConfigError(f"backend={config['backend']} makes no sense with method={name}, {needed}")
    if method.alone and config["distributed"] is not None:
        raise ConfigError(f"distributed={config['distributed']} makes no sense with method={name}, {method.alone}")
    if objection := method.objection(config):
        raise ConfigError(objection)
    if config["powerprop"] != 1:
        power = f"powerprop={config['powerprop']:g} makes no sense with"
        if method.grows_at_zero:
            raise ConfigError(f"{power} method={name}: a weight that starts at 0 gets no gradient and never moves")
        if not dense:
            raise ConfigError(f"{power} backend={config['backend']}: it needs dense storage")


def _check_storage(experiment: Experiment) -> None:
    """Check that weights and state can be stored as asked."""
    config, optimizer, name = experiment.config, experiment.build("optimizer"), experiment.choices["optimizer"]
    weights, state, rounding = config["weights"], config["state"], config["rounding"]
    if weights == "fp32" and rounding != "stochastic":
        raise ConfigError(f"rounding={rounding} makes no sense with weights=fp32, which are not rounded")
    for key, value in (("weights", weights), ("state", state)):
        if value != "fp32" and not optimizer.elementwise:
            raise ConfigError(
                f"{key}={value} makes no sense with optimizer={name}, whose class does not declare that its "
                "step is elementwise"
            )
    if state != "fp32" and optimizer.stateless:
        raise ConfigError(f"state={state} makes no sense with optimizer={name}, which has no state with these settings")
    if weights == "fp16" and config["precision"] != "fp16":
        raise ConfigError(
            f"weights=fp16 makes no sense with precision={config['precision']}: small gradients, which have the type "
            "of weights, are lost unless precision=fp16 scales the loss"
        )


def _check_early_stop(method: Any, experiment: Experiment) -> None:
    """Check that a run that may end early has images to decide by, and is one training."""
    config = experiment.config
    if config["early_stop"] is None:
        return
    early = f"early_stop={config['early_stop']}"
    if not experiment.build("dataset").validation:
        raise ConfigError(f"{early} needs validation images: set dataset.validation=N to hold out N training images")
    if method.epochs(config["epochs"], config["sparsity"]) != config["epochs"]:
        name = experiment.choices["method"]
        raise ConfigError(f"{early} makes no sense with method={name}, which trains more than once")


def _check_gradients(experiment: Experiment) -> None:
    """Check that pruning does not ask for the gradient whose place growth takes."""
    prune, grow = experiment.build("prune"), experiment.build("grow")
    if prune is not None and prune.needs_gradient and grow is not None and grow.cost is not Cost.NONE:
        chosen = experiment.choices
        raise ConfigError(
            f"prune={chosen['prune']} makes no sense with grow={chosen['grow']}: both need the gradient at an "
            "update, and growth takes it"
        )


def _check_activations(config: dict[str, Any]) -> None:
    """Check that activations are not rounded from one kind of 16 bits to the other."""
    kept, precision = config["activations"], config["precision"]
    if {kept, precision} == {"bf16", "fp16"}:
        raise ConfigError(
            f"activations={kept} makes no sense with precision={precision}, which is another 16-bit format: "
            f"set activations={precision} or lean"
        )


def _check_allocation(method: Any, experiment: Experiment) -> None:
    """Check that there is an allocation where one sets the layers' counts, and none where nothing asks for it."""
    name, scope, chosen = experiment.choices["method"], experiment.config["scope"], experiment.choices["allocation"]
    if method.allocates(scope):
        if chosen is None:
            where = f"method={name}" if method.start == "sparse" else f"method={name} scope={scope}"
            raise ConfigError(f"allocation=null makes no sense with {where}, which needs one")
    elif chosen is not None:
        culprit = f"allocation={chosen} makes no sense with method={name}"
        if method.allocates("layer"):
            raise ConfigError(f"{culprit} scope={scope}, where scores decide the allocation: set scope=layer")
        raise ConfigError(f"{culprit}, {method.why}")
