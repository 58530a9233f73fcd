"""Composes a configuration and has it checked. No torch.

``compose(overrides)`` turns ``["model=resnet56", "sparsity=0.98"]`` into an ``Experiment``, or raises ``ConfigError``
with one sentence that names the key, the value, what is allowed and the nearest valid spelling. Nothing is written.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env

from dstrun import bounded, grid, identity, trust
from dstrun.check import check
from dstrun.option import GROUPS, ConfigError, nearest
from dstrun.override import (
    CHOOSING,
    PROTOCOL,
    axes,
    check_names,
    parse,
    protocols,
    quoted,
    texts,
    trusted,
    with_protocol,
    without_nulls,
    words,
)  # fmt: skip
from dstrun.schema import KNOWN, NAMES, OPTIONAL, SETTINGS, Schema

HERE = "dstrun.conf"

ConfigStore.instance().store("schema", node=Schema)


Bases = dict[tuple[str, ...], tuple[DictConfig, Any]]
"""By the words that choose options: the composed configuration, and the choices."""


@dataclass(frozen=True)
class Experiment:
    """A resolved configuration: plain values, the option chosen in each group, and the words that make it."""

    config: dict[str, Any]
    choices: dict[str, str | None]
    command: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    """Folders of the user's own options, from which their classes may be imported."""

    def build(self, group: str) -> Any:
        """Instantiate the option chosen in a group, or ``None`` where none is.

        Raises:
            ConfigError: a key the option does not have, a value of the wrong type or out of its bounds.
        """
        node = self.config.get(group)
        if node is None:
            return None
        if not all(target.startswith(trust.OURS) for target in identity.targets({group: node})):
            trust.open_folders(self.directories)
        return _build(group, json.dumps(node))


@lru_cache(maxsize=256)  # options are frozen, and a sweep builds few distinct ones many times
def _build(group: str, node: str) -> Any:
    try:
        return instantiate(OmegaConf.create(json.loads(node)), _convert_="all")
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


def register_plugins() -> None:
    """Make dstrun's Hydra plugins known; Hydra's own search misses those of an installation that can be edited."""
    plugins = Plugins.instance()  # before the imports: its search loads Hydra's own plugins, which ours extend, anew
    from hydra_plugins.dstrun.launcher import Local, Slurm
    from hydra_plugins.dstrun.search_path import Sweeps
    from hydra_plugins.dstrun.sweeper import Grids

    for plugin in (Local, Slurm, Sweeps, Grids):
        plugins.register(plugin)


@contextmanager
def hydra_open(config_dirs: Sequence[str] = ()) -> Iterator[None]:
    """Open Hydra on the shipped ``conf/`` and ``sweeps/``, and on a user's folders as ``--config-dir`` does."""
    register_plugins()
    version.setbase("1.3")
    path = create_config_search_path(f"pkg://{HERE}")
    for folder in config_dirs:
        bounded.check_folder(Path(folder))
        path.prepend("command-line", f"file://{Path(folder).resolve()}", SearchPathQuery("schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2("dstrun", path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


def expand(
    overrides: Sequence[Override], params: Mapping[str, Any] | None = None, grids: Sequence[Mapping[str, Any]] = ()
) -> list[list[str]]:
    """Expand a sweep's overrides, ``["seed=0,1"]``, to those of its runs, ``[["seed=0"], ["seed=1"]]``.

    Args:
        overrides: as typed; those of Hydra itself are left out.
        params: values of a sweep file by key, as they would be typed; ``None`` unsets.
        grids: the same of each grid, see ``grid.runs``.

    Raises:
        ConfigError: no run is left.
    """
    typed = axes(o for o in overrides if not o.is_hydra_override())
    runs = grid.runs(typed, axes(parse(words(params or {}))), [axes(parse(words(grid))) for grid in grids])
    return [with_protocol(parse(run)) for run in runs]


def compose(overrides: Sequence[str], config_dirs: Sequence[str] = (), name: str = "config") -> Experiment:
    """Compose and check the configuration of one run.

    Args:
        overrides: ``key=value`` words as typed; no lists of values.
        config_dirs: folders of the user's own options, searched after the shipped ones.
        name: the primary configuration.

    Raises:
        ConfigError: said in one sentence.
    """
    with hydra_open(config_dirs):
        check_names(_file(name))
        return _compose(list(overrides), name)


def is_sweep(overrides: Sequence[str], config_dirs: Sequence[str], name: str) -> bool:
    """Say whether a primary configuration is a sweep file: ``hydra.mode: MULTIRUN``."""
    with hydra_open(config_dirs):
        return _hydra_compose(_of_hydra(overrides), name).hydra.mode is RunMode.MULTIRUN


def compose_sweep(overrides: Sequence[str], config_dirs: Sequence[str] = (), name: str = "config") -> list[Experiment]:
    """Compose and check every run of a sweep, so that none is started where one cannot run.

    Args:
        overrides: words as typed; they win over those of the file.
        config_dirs: folders of the user's own options and sweep files.
        name: the sweep file; ``config`` is none.

    Raises:
        ConfigError: said in one sentence.
    """
    with hydra_open(config_dirs):
        check_names(_file(name))
        to_hydra = _of_hydra(overrides)
        file = _hydra_compose(to_hydra, name).hydra.sweeper
        runs = expand(parse(overrides), file.get("params"), file.get("grids", ()))
        return compose_runs(runs, name, to_hydra)


def compose_runs(runs: Sequence[Sequence[str]], name: str, to_hydra: Sequence[str] = ()) -> list[Experiment]:
    """Compose and check the runs of a sweep, where Hydra is open; options that runs share are composed once.

    Args:
        runs: the words of each.
        name: the primary configuration.
        to_hydra: words of all that are said to Hydra itself.

    Raises:
        ConfigError: said in one sentence.
    """
    bases: Bases = {}
    return [_compose([*to_hydra, *run], name, bases) for run in runs]


def _of_hydra(overrides: Sequence[str]) -> list[str]:
    """Give the words that are said to Hydra itself: its launcher, its search path."""
    return [o.input_line or "" for o in parse(overrides) if o.is_hydra_override()]


def _compose(overrides: list[str], name: str, bases: Bases | None = None) -> Experiment:
    """Compose one run; ``bases`` keeps what the words that choose options compose to, which takes long."""
    overrides = without_nulls(overrides)
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override() and not override.get_key_element().startswith("hydra"):
            raise ConfigError(f"{override.input_line} lists several values: put -m before it to sweep over them")
    overrides = with_protocol(parsed)
    parsed = parse(overrides)
    file = [] if name == "config" else ["-cn", name]
    command = (*file, *(o.input_line or "" for o in parsed if not o.is_hydra_override()))
    typed, overrides = texts(parsed), [quoted(override) for override in parsed]
    if bases is None:
        return experiment(_hydra_compose(overrides, name), command=command, typed=typed)
    values = [o for o in parsed if o.key_or_group.partition("@")[0] not in CHOOSING and not o.is_hydra_override()]
    options = tuple(quoted(o) for o in parsed if o not in values)
    if options not in bases:
        base = _hydra_compose(list(options), name)
        choices = base.hydra.runtime.choices
        with open_dict(base):
            del base["hydra"]
        bases[options] = base, choices
    composed, choices = copy.deepcopy(bases[options][0]), bases[options][1]
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise diagnose(overrides, name, error) from error
    return experiment(composed, choices, command, typed)


def _file(name: str) -> dict[str, Any]:
    """Read a primary configuration as it was written, before types are known."""
    found = GlobalHydra.instance().config_loader().repository.load_config(name)  # type: ignore[attr-defined]
    return OmegaConf.to_container(found.config, resolve=False) if found else {}  # type: ignore[return-value]


def _hydra_compose(overrides: list[str], name: str) -> DictConfig:
    try:
        composed = hydra_compose(name, overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise diagnose(overrides, name, error) from error
    hydra: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    trust.check_hydra(hydra, trusted(overrides), directories())
    return composed


def directories() -> list[str]:
    """Name the user's own folders that Hydra has been opened on."""
    paths = GlobalHydra.instance().config_loader().get_search_path().get_path()
    return [item.path.removeprefix("file://") for item in paths if item.provider == "command-line"]


@contextmanager
def _no_environment() -> Iterator[None]:
    """Refuse to read environment variables: what a configuration holds is in the run's record."""

    def refuse(name: str, *_: Any) -> None:
        raise ConfigError(
            f"${{oc.env:{name}}} is not read: its value would be in the record; say it as a word, KEY=$NAME"
        )

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.clear_resolver("oc.env")
        OmegaConf.register_new_resolver("oc.env", env)


def experiment(
    composed: DictConfig, choices: Any = None, command: tuple[str, ...] = (), typed: Mapping[str, str] | None = None
) -> Experiment:
    """Resolve and check a composed configuration.

    Args:
        composed: by Hydra.
        choices: the option of each group by name.
        command: the words that make it.
        typed: the text of values among them that look like numbers: a name is what was typed.
    """
    choices = composed.hydra.runtime.choices if choices is None else choices
    try:
        with _no_environment():
            config: Any = OmegaConf.to_container(OmegaConf.masked_copy(composed, KNOWN), resolve=True)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from error
        raise ConfigError(str(error).splitlines()[0]) from error
    _check_recipe(config.pop("recipe").get(choices["optimizer"], {}), config["optimizer"], choices["optimizer"])
    for key, text in (typed or {}).items():
        group, _, leaf = key.partition(".")
        if key in NAMES:
            config[key] = text
        elif leaf and group in GROUPS and identity.is_text(config[group], leaf):
            config[group][leaf] = text
    named, folders = trusted(command), directories()
    if sorted(config["trusted"]) != sorted(named):
        raise ConfigError("trusted is set in a file: say it on the command line or among the params of a sweep file")
    trust.check(config, named, folders)
    found = Experiment(config, {g: choices.get(g) for g in GROUPS}, command, tuple(folders))  # type: ignore[arg-type]
    check(found)
    return found


def _check_recipe(recipe: Mapping[str, Any], taken: Mapping[str, Any], name: str) -> None:
    """Check that the optimizer has taken all that presets, protocols and models say for it."""
    if unknown := recipe.keys() - taken.keys():
        raise ConfigError(f"recipe.{name}.{min(unknown)} is no setting of this optimizer{nearest(min(unknown), taken)}")


def diagnose(overrides: list[str], name: str, error: Exception) -> ConfigError:
    """Find the word at fault and the nearest valid spelling."""
    loader = GlobalHydra.instance().config_loader()
    paths = [o for o in overrides if o.startswith("hydra.searchpath=")]
    groups, values = [], []
    for override in parse(overrides):
        key = override.key_or_group
        chosen_by = key in (*CHOOSING, "hydra/launcher")
        options = loader.get_group_options(key, config_name=name, overrides=paths) if chosen_by else []
        if not options:
            values.append(override)
            continue
        value = override.value()
        if value is None and key not in OPTIONAL:
            return ConfigError(f"{key}=null is not known: choose {', '.join(options)}")
        if value is not None and value not in (protocols() if key == PROTOCOL else options):
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
        base = hydra_compose(name, overrides=[*paths, *(o.input_line or "" for o in groups)], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return ConfigError(
            (str(error).splitlines() or [f"the configuration cannot be read ({type(error).__name__})"])[0]
        )
    every = list(_keys(OmegaConf.to_container(base)))
    for override in values:
        key = override.get_key_element().lstrip("+~")
        known = [k for k in every if k.startswith("hydra.") == key.startswith("hydra.")]
        if key not in known:
            where, _, leaf = key.rpartition(".")
            same = [k for k in known if k.rpartition(".")[0] == where]
            hint = nearest(key, same) or nearest(key, known) or nearest(leaf, known)
            return ConfigError(f"{key} is no setting here{hint}; dstrun --help lists them")
        if parts := [name for name in SETTINGS if name.startswith(f"{key}.")]:
            return ConfigError(f"{key}={override.value()} makes no sense: set {' or '.join(parts)}")
        if override.is_hydra_override():
            continue
        kind = getattr(SETTINGS.get(key), "type", "")
        words = {"float": "a number", "int": "a whole number", "int | None": "a whole number"}
        if kind in words and not isinstance(override.value(), int | float):
            return ConfigError(f"{key}={override.value()} must be {words[kind]}")
        if kind == "int" and isinstance(override.value(), float):
            return ConfigError(f"{key}={override.value()} must be a whole number")
    cause = error.__cause__ or error  # what OmegaConf says, where Hydra only says where
    return ConfigError(f"{str(error).splitlines()[0]}" + (f": {str(cause).splitlines()[0]}" if cause != error else ""))


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
