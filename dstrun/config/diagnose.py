"""Errors of Hydra, OmegaConf and YAML, as one sentence that names the override or file at fault. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dstrun.config import hint
from dstrun.config.option import Bound, nearest
from dstrun.config.override import CHOOSING, PROTOCOL, options_of, parse, protocols
from dstrun.config.own import here
from dstrun.config.plain import KINDS, is_plain
from dstrun.config.schema import KNOWN, OPTIONAL, SETTINGS
from dstrun.config.written import arguments
from dstrun.system.bounded import content
from dstrun.system.trouble import ConfigError

LISTS = "dstrun help settings lists them"
"""Where settings are listed."""

FAULTS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, RecursionError, OSError)
"""What composing raises of words and files."""


UNREAD = re.compile(r"(?is)\.(launcher|sweeper)\b.* unexpected keyword argument '(\w+)'")
"""What Hydra says where a launcher or a sweeper has no such setting."""


LISTED = re.compile(r"Error resolving interpolation '(.*)', possible interpolation keys: (.*)")
"""What Hydra says of an interpolation in a list of defaults."""


def told(error: BaseException) -> ConfigError:
    """Return an error that states in one sentence why Hydra could not compose or start."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__cause__ or cause.__context__
    return cause or of_file(error) or ConfigError(_line(error))


def of_file(error: BaseException) -> ConfigError | None:
    """Return which file is no YAML, or cannot be read; ``None`` where no file is at fault."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, yaml.MarkedYAMLError):
            mark = cause.problem_mark or cause.context_mark
            where = f"{_here(mark.name)} line {mark.line + 1}" if mark else "a file"
            return ConfigError(f"{where} is not valid YAML: {cause.problem or cause.context}")
        if isinstance(cause, UnicodeDecodeError | yaml.YAMLError):
            return ConfigError(f"{_undecodable() or 'a file'} is not UTF-8 text: save it as UTF-8")
        if isinstance(cause, RecursionError):
            return ConfigError(
                "the configuration is nested without end: look for a file or a value that refers to itself"
            )
        if isinstance(cause, OSError) and cause.filename and cause.errno:
            return ConfigError(f"{_here(cause.filename)} cannot be read: {cause.strerror}")
        cause = cause.__cause__ or cause.__context__
    return None


def _line(error: BaseException) -> str:
    """Return the first line of what an error says, and of its cause where that says more."""
    cause = error.__cause__ or error  # what OmegaConf says, where Hydra only says where
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    if unread := UNREAD.search(str(error)):
        return f"hydra.{unread[1].lower()}.{unread[2]} is not a setting of this {unread[1].lower()}"
    more = next(iter(str(cause).splitlines()), "")
    if first.endswith(":"):
        return " ".join(str(error).splitlines()[:2])
    return first + (f": {more}" if cause is not error and more and more not in first else "")


def _here(path: Any) -> str:
    return str(here(Path(str(path))))


def folders() -> list[Path]:
    """List the user's own folders, where Hydra is open."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return [Path(source.path) for source in sources if source.scheme() == "file"]


def file_of(path: str) -> str:
    """Return where a file of the user's own is, as seen from here; empty where he has none of this name."""
    return next((_here(folder / path) for folder in folders() if (folder / path).is_file()), "")


def written(path: str) -> Container | None:
    """Return the first file of a name that Hydra finds, as it is written; ``None`` where there is none."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    found = next((source for source in sources if source.is_config(path)), None)
    return found.load_config(path).config if found else None


def _files() -> Iterator[Path]:
    return (path for folder in folders() for path in (*folder.glob("*.yaml"), *folder.glob("*/**/*.yaml")))


def _undecodable() -> str:
    """Find a file of the user's own that is no text."""
    for path in _files():
        try:
            content(path).decode()
        except ValueError:
            return _here(path)
        except OSError:
            continue
    return ""


def unknown(key: str, known: Iterator[str] | list[str], value: str = "") -> ConfigError:
    """Return the error of a setting that does not exist, with the one that is probably meant.

    Args:
        key: as typed.
        known: every setting.
        value: as typed.
    """
    return ConfigError(f"{key} is not a setting here{hint.setting(key, value, list(known))}; {LISTS}")


def diagnose(overrides: list[str], name: str, error: BaseException) -> ConfigError:
    """Find the word at fault and the nearest valid spelling."""
    try:
        return of_file(error) or _of_words(overrides, name, error)
    except FAULTS as again:  # what keeps Hydra from composing may keep it from listing what there is
        return told(again)


def _of_words(overrides: list[str], name: str, error: BaseException) -> ConfigError:
    loader = GlobalHydra.instance().config_loader()
    paths = [o for o in overrides if o.startswith("hydra.searchpath=")]
    groups, values = [], []
    for override in parse(overrides):
        key = override.key_or_group
        chosen_by = key in (*CHOOSING, "hydra/launcher", "hydra/sweeper")
        options = loader.get_group_options(key, config_name=name, overrides=paths) if chosen_by else []
        if not options:
            values.append(override)
            continue
        value = override.value()
        if value is None and key not in (*OPTIONAL, PROTOCOL):
            return ConfigError(f"{key}=null is not known: choose {', '.join(options)}")
        if value is not None and value not in (protocols() if key == PROTOCOL else options):
            if beside := next(Path().glob(f"*/{key}/{value}.yaml"), None):
                return ConfigError(f"{key}={value} is not known: add --config-dir {beside.parents[1]}, which has it")
            return ConfigError(f"{key}={value} is not known: choose {', '.join(options)}{_meant(key, value, options)}")
        groups.append(override)
    try:
        base = hydra_compose(name, overrides=[*paths, *(o.input_line or "" for o in groups)], return_hydra_config=True)
    except FAULTS as again:
        if "subset" in {o.key_or_group for o in groups} and "'subset'. No match" in str(again):
            chosen = {str(o.key_or_group): o.value() for o in groups}
            culprit = next((f"{key}={chosen[key]}" for key in ("grow", "method") if chosen.get(key)), f"-cn {name}")
            return ConfigError(f"subset makes no sense with {culprit}: only grow=gse draws a subset")
        return of_file(again) or _unread(groups) or _added(overrides) or _in_file(again)
    every = list(keys(OmegaConf.to_container(base)))
    return _of_part(values, base) or _of_value(values, every) or _added(overrides, every) or ConfigError(_line(error))


def _meant(key: str, value: Any, options: Collection[str]) -> str:
    """Return which option is meant by one that there is not: of this group or, if its name is there, of another."""
    if any(option.startswith(str(value)) for option in options):
        return hint.value(key, str(value), options)
    others = [f"{group}={value}" for group in CHOOSING if group != key and value in options_of(group)]
    return hint.said(*others) if others else hint.value(key, str(value), options)


def _added(overrides: list[str], every: Collection[str] = CHOOSING) -> ConfigError | None:
    """Return which word adds, by ``+``, what is there."""
    for override in parse(overrides):
        word = override.input_line or ""
        if override.is_add() and not override.is_force_add() and override.key_or_group in (*CHOOSING, *every):
            return ConfigError(f"{word} adds a setting that exists: write {word.removeprefix('+')}")
    return None


def _unread(groups: list[Override]) -> ConfigError | None:
    """Return which option's file holds no settings."""
    for override in groups:
        path = f"{override.key_or_group}/{override.value()}"
        try:
            written(path)
        except FAULTS as error:
            return ConfigError(f"{path}.yaml must hold settings, and _target_: {_line(error)}")
    return None


def _of_part(values: list[Override], base: DictConfig) -> ConfigError | None:
    """Find the first word that sets what the yaml of a plain part leaves to its class or function."""
    for override in values:
        group, _, leaf = override.key_or_group.partition(".")
        node = base.get(group) if group in KINDS and not override.is_add() else None
        if not node or leaf in node or not is_plain(group, target := str(node.get("_target_"))):
            continue
        taken = arguments(target).defaults
        if leaf in taken:
            return ConfigError(f"{group}.{leaf} is not in the yaml of {group}: write +{override.input_line}")
        if hint := nearest(leaf, {*taken, *node}):
            near = hint.removeprefix(" (did you mean ").removesuffix("?)")
            plus = "" if near in node else "+"
            return ConfigError(f"{group}.{leaf} is not a setting here (did you mean {plus}{group}.{near}?)")
    return None


def _of_value(values: list[Override], every: list[str]) -> ConfigError | None:
    """Find the first word whose key or value cannot be."""
    for override in values:
        key = override.get_key_element().lstrip("+~")
        known = [k for k in every if k.startswith("hydra.") == key.startswith("hydra.")]
        if key not in known:
            return unknown(key, known, (override.input_line or "").partition("=")[2])
        if override.is_delete():
            continue
        if parts := [name for name in SETTINGS if name.startswith(f"{key}.")]:
            return ConfigError(f"{key}={override.value()} makes no sense: set {' or '.join(parts)}")
        if override.is_hydra_override():
            continue
        kind = getattr(SETTINGS.get(key), "type", "")
        said = {"float": "a number", "int": "a whole number", "int | None": "a whole number", "bool": "true or false"}
        value = override.value()
        if isinstance(value, str) and "${" in value:
            continue
        if kind in said and kind != "bool" and not isinstance(value, int | float):
            bound = SETTINGS[key].metadata["bound"]
            near = hint.share(str(value), bound.low, bound.high) if isinstance(bound, Bound) else ""
            return ConfigError(f"{key}={'null' if value is None else value} must be {said[kind]}{near}")
        if kind.startswith("int") and isinstance(value, float):
            return ConfigError(f"{key}={value} must be a whole number")
        if kind.startswith("list") and not isinstance(value, list):
            return ConfigError(f"{key}={value} must be a list such as [{value}]")
        if kind == "bool" and not isinstance(value, bool):
            return ConfigError(f"{key}={value} must be true or false")
        if kind == "str" and (value is None or isinstance(value, list | dict)):
            return ConfigError(f"{key}={'null' if value is None else value} must be a name")
    return None


def _in_file(error: BaseException) -> ConfigError:
    """Return what is wrong in a file if the overrides are right; an unknown key with the nearest spelling."""
    if listed := LISTED.match(str(error)):
        text, known = listed.groups()
        file = next((f"{_here(path)}: " for path in _files() if text.encode() in content(path)), "")
        return ConfigError(f"{file}defaults: {text} cannot be resolved: choose {', '.join(sorted(known.split(', ')))}")
    cause: BaseException | None = error
    while cause is not None:
        key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
        if type(cause).__name__ == "ConfigKeyError" and key:
            where = next(iter(str(error).split(": ", 1)), "")
            known = [*KNOWN, *SETTINGS, "hydra.sweeper.params", "hydra.sweeper.grids"]
            return ConfigError(f"{where}: {key} is not a setting here{nearest(str(key), known)}; {LISTS}")
        cause = cause.__cause__ or cause.__context__
    return ConfigError(_line(error))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value by its dotted name, those in lists too."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else None
    if pairs is None:
        yield path, node
    for key, value in pairs or ():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Name every leaf and every branch of a nested dictionary with dots."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
