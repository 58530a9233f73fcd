"""Composes and checks a configuration: the schema, the ranges, the combinations. No torch.

``compose(overrides)`` turns ``["model=resnet56", "sparsity=0.98"]`` into an ``Experiment``, or raises ``ConfigError``
with one sentence that names the key, the value, what is allowed and the nearest valid spelling. Nothing is written.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dstrun.option import GROUPS, Above, AtLeast, ConfigError, OneOf, Within, check_value, nearest

HERE = "dstrun.conf"


def setting(default: Any, bound: Any, help: str) -> Any:
    """Declare a top-level setting: its default, its bound and the line that ``dstrun --help`` prints."""
    return field(default=default, metadata={"bound": bound, "help": help})


@dataclass
class CheckpointSettings:
    """When a run is saved."""

    every_minutes: float = setting(10.0, Above(0), "from one checkpoint to the next")


@dataclass
class Schema:
    """The top-level settings and the groups; Hydra checks their types, ``check`` their ranges."""

    sparsity: float = setting(0.9, Within(0, 1, high_open=True), "zeros / prunable weights")
    seed: int = setting(0, AtLeast(0), "of topology, initial weights, order and augmentation")
    epochs: int = setting(200, AtLeast(1), "passes over the training images")
    batch_size: int = setting(128, AtLeast(1), "images a step")
    label_smoothing: float = setting(0.0, Within(0, 1, high_open=True), "of the cross-entropy")
    scope: str = setting("layer", OneOf("layer", "global"), "where prune and grow rank connections")
    backend: str = setting(
        "masked", OneOf("masked", "sparse", "auto"), "masked simulates on dense storage, sparse never does, auto mixes"
    )
    powerprop: float = setting(1.0, AtLeast(1), "p of w = v |v|^(p - 1), the weights trained through v; 1 is plain")
    strict: bool = setting(False, None, "refuse a layer that loses its last connection, instead of warning")
    device: str = setting("auto", OneOf("auto", "cpu", "cuda", "mps"), "where to train")
    precision: str = setting("fp32", OneOf("fp32", "bf16", "fp16"), "of the forward and backward pass")
    distributed: str | None = setting(None, OneOf("ddp"), "ddp: one run over the processes of torchrun or srun")
    experiment: str = setting("default", None, "folder under results")
    results: str = setting("results", None, "where records go")
    wandb: str = setting("auto", OneOf("auto", "online", "offline", "disabled"), "mirror to Weights & Biases")
    threads: int | None = setting(None, AtLeast(1), "CPU threads; all cores if null")
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    retry: int = setting(0, AtLeast(0), "how often a sweep tries a run again that failed or was lost")
    fail_fast: bool = setting(False, None, "stop a sweep at its first failure")

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    prune: Any = None
    grow: Any = None
    subset: Any = None
    allocation: Any = None
    schedule: Any = None
    optimizer: Any = MISSING


ConfigStore.instance().store("schema", node=Schema)

SETTINGS = {f.name: f for f in fields(Schema) if f.metadata} | {
    f"checkpoint.{f.name}": f for f in fields(CheckpointSettings)
}
"""What is declared with ``setting``, by the name under which it is set."""


@dataclass(frozen=True)
class Experiment:
    """A resolved configuration: plain values, the option chosen in each group, and the overrides as typed."""

    config: dict[str, Any]
    choices: dict[str, str | None]

    def build(self, group: str) -> Any:
        """Instantiate the option chosen in a group, or ``None`` where none is.

        Raises:
            ConfigError: a key the option does not have, a value of the wrong type or out of its bounds.
        """
        node = self.config.get(group)
        if node is None:
            return None
        try:
            return instantiate(OmegaConf.create(node), _convert_="all")
        except HydraException as error:
            raise _sentence(error, group) from error


def _sentence(error: BaseException, group: str) -> BaseException:
    """Dig the ``ConfigError`` out of an instantiation error; say a key that the option lacks; else leave it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return ConfigError(str(cause))
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if isinstance(cause, TypeError) and unknown:
            return ConfigError(f"{group}.{unknown[1]} is no setting of this {group}")
        cause = cause.__cause__
    return error


@contextmanager
def hydra_open(config_dirs: Sequence[str] = ()) -> Iterator[list[str]]:
    """Open Hydra on the shipped ``conf/`` (and a user's folders); yields the overrides that add the folders."""
    GlobalHydra.instance().clear()
    with initialize_config_module(HERE, version_base="1.3"):
        paths = ",".join(f"file://{Path(d).resolve()}" for d in config_dirs)
        yield [f"hydra.searchpath=[{paths}]"] if paths else []


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Expand a sweep's overrides, ``["seed=0,1"]``, to those of its runs, ``[["seed=0"], ["seed=1"]]``."""
    axes: list[list[str]] = []
    for override in parse(overrides):
        if override.is_sweep_override():
            values: Iterable[str] = override.sweep_string_iterator()
            axes.append([f"{override.get_key_element()}={value}" for value in values])
        else:
            axes.append([override.input_line or ""])
    return [list(run) for run in itertools.product(*axes)]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar.

    Raises:
        ConfigError: a word that is no ``key=value``.
    """
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        word = getattr(error, "override", None) or overrides[0]
        raise ConfigError(f"{word} cannot be read as key=value: quote special characters") from error


def compose(overrides: Sequence[str], config_dirs: Sequence[str] = (), name: str = "config") -> Experiment:
    """Compose and check the configuration of one run.

    Args:
        overrides: ``key=value`` words as typed; no lists of values.
        config_dirs: folders of the user's own options, searched after the shipped ones.
        name: the primary configuration.

    Raises:
        ConfigError: said in one sentence.
    """
    with hydra_open(config_dirs) as extra:
        return _compose([*extra, *overrides], name)


def compose_sweep(overrides: Sequence[str], config_dirs: Sequence[str] = (), name: str = "config") -> list[Experiment]:
    """Compose and check every run of a sweep, so that none is started where one cannot run."""
    with hydra_open(config_dirs) as extra:
        return [_compose([*extra, *run], name) for run in expand(overrides)]


def _compose(overrides: list[str], name: str) -> Experiment:
    for override in parse(overrides):
        if override.is_sweep_override() and not override.get_key_element().startswith("hydra"):
            raise ConfigError(f"{override.input_line} lists several values: put -m before it to sweep over them")
    try:
        composed = hydra_compose(name, overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise diagnose(overrides, name, error) from error
    return experiment(composed)


def experiment(composed: DictConfig, choices: Any = None) -> Experiment:
    """Resolve and check a composed configuration."""
    choices = composed.hydra.runtime.choices if choices is None else choices
    known = [f.name for f in fields(Schema)]
    try:
        config = OmegaConf.to_container(OmegaConf.masked_copy(composed, known), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    found = Experiment(config, {g: choices.get(g) for g in GROUPS})  # type: ignore[arg-type]
    check(found)
    return found


def diagnose(overrides: list[str], name: str, error: Exception) -> ConfigError:
    """Find the word at fault and the nearest valid spelling."""
    loader = GlobalHydra.instance().config_loader()
    paths = [o for o in overrides if o.startswith("hydra.searchpath=")]
    groups, values = [], []
    for override in parse(overrides):
        key = override.key_or_group
        options = loader.get_group_options(key, config_name=name, overrides=paths) if key in GROUPS else []
        if not options:
            values.append(override)
            continue
        value = override.value()
        if value is None:
            return ConfigError(f"{key}=null is not known: choose {', '.join(options)}")
        if value not in options:
            return ConfigError(f"{key}={value} is not known: choose {', '.join(options)}{nearest(str(value), options)}")
        groups.append(override)
    chosen = {override.key_or_group for override in groups}
    if "subset" in chosen:
        grow = next((o.value() for o in groups if o.key_or_group == "grow"), None)
        method = next((o.value() for o in groups if o.key_or_group == "method"), None)
        culprit = f"grow={grow}" if grow else f"method={method}"
        if grow != "gse":
            return ConfigError(f"subset makes no sense with {culprit}: only grow=gse draws a subset")
    try:
        base = hydra_compose(name, overrides=[*paths, *(o.input_line or "" for o in groups)])
    except (HydraException, OmegaConfBaseException):
        return ConfigError(str(error).splitlines()[0])
    known = list(_keys(OmegaConf.to_container(base)))
    for override in values:
        key = override.get_key_element().lstrip("+~")
        if key.startswith("hydra"):
            continue
        if key not in known:
            where, _, leaf = key.rpartition(".")
            same = [k for k in known if k.rpartition(".")[0] == where]
            hint = nearest(key, same) or nearest(key, known) or nearest(leaf, known)
            return ConfigError(f"{key} is no setting here{hint}; dstrun --help lists them")
        if parts := [name for name in SETTINGS if name.startswith(f"{key}.")]:
            return ConfigError(f"{key}={override.value()} makes no sense: set {' or '.join(parts)}")
        kind = getattr(SETTINGS.get(key), "type", "")
        words = {"float": "a number", "int": "a whole number", "int | None": "a whole number"}
        if kind in words and not isinstance(override.value(), int | float):
            return ConfigError(f"{key}={override.value()} must be {words[kind]}")
        if kind == "int" and isinstance(override.value(), float):
            return ConfigError(f"{key}={override.value()} must be a whole number")
    return ConfigError(str(error).splitlines()[0])


def told(error: BaseException) -> ConfigError:
    """Say in one sentence what kept Hydra from starting a sweep."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__cause__ or cause.__context__
    return cause or ConfigError(str(error).splitlines()[0])


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Name every leaf and every branch of a nested dictionary with dots."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def check(experiment: Experiment) -> None:
    """Check ranges and combinations.

    Raises:
        ConfigError: said in one sentence, naming both options where two do not go together.
    """
    config = experiment.config
    for name, item in SETTINGS.items():
        group, _, leaf = name.rpartition(".")
        value, bound = (config[group] if group else config)[leaf], item.metadata["bound"]
        if bound is not None and value is not None:
            check_value(name, value, Annotated[str if isinstance(value, str) else float, bound])
    check_value("model.width", config["model"].get("width", 1.0), Annotated[float, Above(0)])
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", config["experiment"]) or ".." in config["experiment"]:
        raise ConfigError(f"experiment={config['experiment']} must be a folder name: letters, digits, . _ + - and /")
    method = experiment.build("method")
    _check_parts(method, experiment)
    for group in ("allocation", "schedule", "optimizer", "dataset"):
        experiment.build(group)
    _check_gradients(experiment)


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
    if method.dense and config["backend"] != "masked":
        raise ConfigError(f"backend={config['backend']} makes no sense with method={name}, {method.dense}")
    if method.alone and config["distributed"] is not None:
        raise ConfigError(f"distributed={config['distributed']} makes no sense with method={name}, {method.alone}")
    if objection := method.objection(config):
        raise ConfigError(objection)
    if config["powerprop"] != 1:
        power = f"powerprop={config['powerprop']:g} makes no sense with"
        if method.grows_at_zero:
            raise ConfigError(f"{power} method={name}: a weight that starts at 0 gets no gradient and never moves")
        if config["backend"] != "masked":
            raise ConfigError(f"{power} backend={config['backend']}: only dense storage has it")


def _check_gradients(experiment: Experiment) -> None:
    """Check that pruning does not ask for the gradient whose place growth takes."""
    from dstrun.grow.criterion import Cost

    prune, grow = experiment.build("prune"), experiment.build("grow")
    if prune is not None and prune.needs_gradient and grow is not None and grow.cost is not Cost.NONE:
        chosen = experiment.choices
        raise ConfigError(
            f"prune={chosen['prune']} makes no sense with grow={chosen['grow']}: both need the gradient of an update, "
            "which is taken for growth"
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
            raise ConfigError(f"{culprit} scope={scope}, where scores decide: set scope=layer")
        raise ConfigError(f"{culprit}, {method.why}")
