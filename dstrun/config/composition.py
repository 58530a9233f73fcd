"""Composes a configuration and has it checked. No torch.

``compose(overrides)`` turns ``["model=resnet56", "sparsity=0.98"]`` into an ``Experiment``, or raises ``ConfigError``
with one sentence that names the key, the value, what is allowed and the nearest valid spelling. Nothing is written.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dstrun.config import contract, grid, honoured, identity, own, source, trust
from dstrun.config.check import check, starting
from dstrun.config.diagnose import FAULTS, diagnose, file_of, folders, leaves, told, unknown
from dstrun.config.experiment import Experiment
from dstrun.config.interpolation import Unresolved, resolving
from dstrun.config.option import GROUPS, expanded, nearest
from dstrun.config.override import (
    CHOOSING,
    axes,
    check_names,
    check_typed,
    options_of,
    parse,
    quoted,
    several,
    texts,
    trusted,
    with_protocol,
    without_nulls,
    words,
)
from dstrun.config.schema import DEFAULTS, KNOWN, MISSING, NAMES, OPTIONAL, SETTINGS, Schema, listed, place
from dstrun.system.trouble import ConfigError

HERE = "dstrun.conf"

ConfigStore.instance().store("schema", node=Schema)

Bases = dict[tuple[str, ...], tuple[bytes, Mapping[str, Any], Mapping[Path, ConfigSource]]]
"""By the primary configuration and the words that choose options: what is composed, the choices, files of the user's.

The configuration is pickled: unpickling one takes a sixth of the time of ``copy.deepcopy``.
"""

SHIPPED: Bases = {}
"""What options that are shipped compose to, for the whole process: Hydra takes 0.1 s each time."""


def register_plugins() -> None:
    """Make dstrun's Hydra plugins known; Hydra's own search misses those of an installation that can be edited."""
    plugins = Plugins.instance()  # before the imports: its search loads Hydra's own plugins, which ours extend, anew
    from hydra_plugins.dstrun.launcher import Local, Slurm
    from hydra_plugins.dstrun.search_path import Folders
    from hydra_plugins.dstrun.sweeper import Grids

    for plugin in (Local, Slurm, Folders, Grids):
        plugins.register(plugin)
    source.bound()


@contextmanager
def hydra_open(config_dirs: Sequence[str] = ()) -> Iterator[None]:
    """Open Hydra on the shipped ``conf/`` and ``sweeps/``, and on a user's folders as ``--config-dir`` does."""
    register_plugins()
    warnings.filterwarnings("ignore", "provider=hydra.searchpath")  # its folders are checked (``own.check_search``)
    config_dirs = own.folders(config_dirs)
    own.find_modules(own.modules(config_dirs))
    with own.searched(config_dirs), initialize_config_module(HERE, "dstrun", version_base="1.3"):
        yield


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
        return checked(overrides, name)


def is_sweep(overrides: Sequence[str], config_dirs: Sequence[str], name: str) -> bool:
    """Return whether a primary configuration is a sweep file: ``hydra.mode: MULTIRUN``."""
    with hydra_open(config_dirs):
        check_names(source.primary(name))
        return _hydra_compose(of_hydra(overrides), name).hydra.mode is RunMode.MULTIRUN


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
        return compose_runs(sweep_words(overrides, name), name, of_hydra(overrides))


def sweep_words(overrides: Sequence[str], name: str) -> list[list[str]]:
    """Return the overrides of every run of a sweep, where Hydra is open.

    Raises:
        ConfigError: said in one sentence.
    """
    check_names(source.primary(name))
    hydra = _hydra_compose(of_hydra(overrides), name).hydra
    try:
        for part, environment in ((hydra.sweeper, False), (hydra.launcher, True)):
            with resolving(environment=environment):
                OmegaConf.to_container(part, resolve=True)
    except Unresolved as error:
        raise source.placed(error, parse(overrides), source.composed(of_hydra(overrides), name)) from error
    file = hydra.sweeper
    if not str(file._target_).startswith(("hydra_plugins.dstrun.", "hydra._internal.")):
        raise ConfigError(
            f"hydra/sweeper is {file._target_} in a file: set hydra/sweeper=NAME on the command line instead"
        )
    if odd := [grid for grid in file.get("grids", ()) if not isinstance(grid, Mapping)]:
        raise ConfigError(f"hydra.sweeper.grids holds {odd[0]}, which is not a mapping: each item must be KEY: VALUES")
    return expand(parse(overrides), file.get("params"), file.get("grids", ()))


def checked(overrides: Sequence[str], name: str) -> Experiment:
    """Compose and check one run, where Hydra is open.

    Raises:
        ConfigError: said in one sentence.
    """
    check_names(source.primary(name))
    return _compose(list(overrides), name, None if folders() or of_hydra(overrides) else SHIPPED)


def compose_runs(runs: Sequence[Sequence[str]], name: str, to_hydra: Sequence[str] = ()) -> list[Experiment]:
    """Compose and check the runs of a sweep, where Hydra is open; options that runs share are composed once.

    Args:
        runs: the words of each.
        name: the primary configuration.
        to_hydra: words of all that are said to Hydra itself.

    Raises:
        ConfigError: said in one sentence.
    """
    bases: Bases = {} if folders() or to_hydra else SHIPPED
    return [_compose([*to_hydra, *run], name, bases) for run in runs]


def of_hydra(overrides: Sequence[str]) -> list[str]:
    """Return the words that are said to Hydra itself: its launcher, its search path."""
    return [o.input_line or "" for o in parse(overrides) if o.is_hydra_override()]


def _compose(overrides: list[str], name: str, bases: Bases | None = None) -> Experiment:
    """Compose one run; ``bases`` keeps what the words that choose options compose to, which takes long."""
    overrides = without_nulls(overrides)
    parsed = parse(overrides)
    if found := [o for o in parsed if o.is_sweep_override() and not o.get_key_element().startswith("hydra")]:
        raise several(found[0])
    overrides = with_protocol(parsed)
    parsed = parse(overrides)
    command = tuple(o.input_line or "" for o in parsed if not o.is_hydra_override())
    typed, overrides = texts(parsed), [quoted(override) for override in parsed]
    values = [o for o in parsed if o.key_or_group.partition("@")[0] not in CHOOSING and not o.is_hydra_override()]
    options = tuple(quoted(o) for o in parsed if o not in values)
    key = (name, *options)
    if bases is not None and key not in bases:
        base = _hydra_compose(list(options), name)
        made = pickle.dumps(_without_hydra(base)), dict(base.hydra.runtime.choices)
        bases[key] = (*made, source.composed(options, name))
    composed = None if bases is None else _with(values, bases[key][0])
    choices: Mapping[str, Any]
    if bases is None or composed is None:
        composed = _hydra_compose(overrides, name)
        choices, files = dict(composed.hydra.runtime.choices), source.composed(options, name)
    else:
        _, choices, files = bases[key]
    check_typed(parsed, choices)
    try:
        found = experiment(composed, choices, command, typed)
    except Unresolved as error:
        raise source.placed(error, parsed, files) from error
    return repeatable(found, parsed, name, files.values())


def _with(values: Sequence[Override], base: bytes) -> DictConfig | None:
    """Return a base with values set; ``None`` where one adds, deletes or cannot be set, which Hydra sees to."""
    if any(value.type is not OverrideType.CHANGE or value.package for value in values):
        return None
    found = pickle.loads(base)
    try:
        with resolving():
            for value in values:
                OmegaConf.update(found, value.key_or_group, value.value())
    except FAULTS:
        return None
    return found


def repeatable(found: Experiment, words: Sequence[Override], name: str, used: Collection[ConfigSource]) -> Experiment:
    """Add the flags without which the words of an experiment would make another, where Hydra is open.

    Args:
        found: with its words.
        words: as typed, those to Hydra too.
        name: the primary configuration.
        used: folders of the user's own whose files are composed.
    """
    file = [] if name == "config" else ["-cn", name]
    more = source.flags(used, identity.roots(found.config) if found.places else (), words)
    return replace(found, command=(*file, *more, *found.command))


def _hydra_compose(overrides: list[str], name: str) -> DictConfig:
    parsed = parse(overrides)
    honoured.check_words(honoured.keys(parsed))
    source.check_search(parsed, name)
    try:
        with resolving():
            found = hydra_compose(name, overrides=overrides, return_hydra_config=True)
            found.hydra.get("mode")  # which is asked for next
        honoured.check_composed(OmegaConf.to_container(found.hydra, resolve=False))  # type: ignore[arg-type]
    except Unresolved as error:
        raise source.placed(error, parsed, () if error.file else source.composed(overrides, name)) from error
    except FAULTS as error:
        raise (error if isinstance(error, ConfigError) else diagnose(overrides, name, error)) from error
    trust.check_hydra(OmegaConf.to_container(found.hydra, resolve=False), trusted(overrides), places())
    return found


def places() -> tuple[str, ...]:
    """Return where modules of the user's own may be, where Hydra is open."""
    return own.modules([str(folder) for folder in folders()])


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
    every = {str(key) for key in composed} - {"hydra"}
    if strange := sorted(every - {*KNOWN}):
        raise unknown(strange[0], [*KNOWN, *SETTINGS])
    try:
        with resolving():
            settings = _without_hydra(composed) if "hydra" in composed else composed
            config: Any = OmegaConf.to_container(settings, resolve=True)
    except FAULTS as error:
        raise told(error) from error
    _fill(config)
    for key, text in (typed or {}).items():
        group, _, leaf = key.partition(".")
        if key in NAMES:
            place(config, key)[0][leaf or key] = text
        elif leaf and group in GROUPS and identity.is_text(config[group], leaf):
            config[group][leaf] = text
    named = trusted(command)
    if sorted(config["trusted"]) != sorted(named):
        raise ConfigError("trusted is set in a file: set it on the command line or among the params of a sweep file")
    trust.check(config, named, places())
    for group in (group for group in GROUPS if choices.get(group)):
        file = file_of(f"{group}/{choices.get(group)}.yaml")
        contract.check_node(group, config[group], f"{group}={choices.get(group)}", file)
    _check_recipe(config.pop("recipe"), config["optimizer"], str(choices["optimizer"]))
    config["results"] = expanded(config["results"])
    mine = any(not target.startswith(identity.OWN) for target in identity.targets(config))
    where = places() if mine else ()
    found = Experiment(config, {g: choices.get(g) for g in GROUPS}, command, where)  # type: ignore[arg-type]
    check(found)
    return starting(found)


def _without_hydra(composed: DictConfig) -> DictConfig:
    """Return what a run reads, each setting of its type."""
    found = copy.deepcopy(composed)
    with open_dict(found):
        found.pop("hydra", None)
    return found


def _fill(config: dict[str, Any]) -> None:
    """Restore settings that ``~seed`` has taken away their defaults, and make names text.

    Raises:
        ConfigError: a group that needs an option has none, or a value is left open.
    """
    if missing := next((path for path, value in leaves(config) if value == MISSING), None):
        raise ConfigError(f"{missing} has no value ({MISSING}): set it")
    for name, default in DEFAULTS.items():
        if name not in config:
            config[name] = copy.deepcopy(default)
        if isinstance(default, dict) and isinstance(config[name], dict):
            config[name] = default | config[name]
        strange = {*config[name]} - {*default} if isinstance(default, dict) and name != "recipe" else ()
        if strange:
            raise unknown(f"{name}.{min(strange)}", [*SETTINGS])
    for group in GROUPS:
        if config.setdefault(group, None) is None and group not in OPTIONAL:
            raise ConfigError(f"{group}=null makes no sense: choose one; dstrun help {group} lists them")
    for name in NAMES:
        held, leaf = place(config, name)
        if isinstance(held[leaf], int | float):  # of an interpolation
            held[leaf] = str(held[leaf])
        if not isinstance(held[leaf], str) and SETTINGS[name].default is not None:
            raise ConfigError(f"{name}={held[leaf]} must be a name")
    config["tracker"] = listed(config["tracker"])


def _check_recipe(recipes: Any, taken: Mapping[str, Any], name: str) -> None:
    """Check that there are the optimizers for which presets, protocols, models and words say something.

    And that the one chosen has taken all that is said for it.
    """
    if not isinstance(recipes, Mapping):
        raise ConfigError(f"recipe={recipes} makes no sense: set recipe.{name}.lr")
    known = options_of("optimizer") if recipes.keys() - {name} else [name]
    if strange := sorted(recipes.keys() - {*known}):
        raise ConfigError(
            f"recipe.{strange[0]} is not an optimizer{nearest(strange[0], known)}: choose {', '.join(known)}"
        )
    if unknown := (recipes.get(name) or {}).keys() - taken.keys():
        raise ConfigError(
            f"recipe.{name}.{min(unknown)} is not a setting of this optimizer{nearest(min(unknown), taken)}"
        )
