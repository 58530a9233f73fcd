"""Overrides of command lines and sweep files in Hydra's grammar. No torch."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException

from dstrun.config.grid import MOST_RUNS
from dstrun.config.option import GROUPS
from dstrun.config.schema import DEFAULTS, NAMES, OPTIONAL, SETTINGS
from dstrun.system.trouble import ConfigError

PROTOCOL = "protocol"
"""The group whose options are papers; each has a folder of files besides, one a method."""

SHORT = re.compile(r"^(\+*wandb)=(?![{]|null$)")
"""``wandb=offline``, as older versions had it, is ``wandb.mode=offline``."""

LONG = 200
"""Letters of a word that are shown."""

CHOOSING = (*GROUPS, PROTOCOL)
"""The groups of which a word chooses an option."""


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar.

    Raises:
        ConfigError: a word that is no ``key=value``.
    """
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    try:
        return [copy.copy(_parsed(word, loader)) for word in overrides]
    except (HydraException, RecursionError) as error:
        word = getattr(error, "override", None) or max(overrides, key=len)
        shown = word if len(word) < LONG else f"{word[:LONG]}..."
        raise ConfigError(f"{shown} cannot be read as key=value: quote special characters") from error


@lru_cache(maxsize=1024)
def _parsed(word: str, loader: ConfigLoader | None) -> Override:
    """Parse a word; the runs of a sweep share most of theirs."""
    [found] = OverridesParser.create(config_loader=loader).parse_overrides([SHORT.sub(r"\1.mode=", word)])
    return found


def spelled(words: Sequence[str]) -> list[str]:
    """Quote text that Hydra's grammar cannot read, ``results=~/x``, of settings that are text; leave all else."""
    return [_spelled(word) for word in words]


def _spelled(word: str) -> str:
    word = SHORT.sub(r"\1.mode=", word)  # Hydra composes the runs of a sweep from the words themselves, too
    key, sign, text = word.partition("=")
    if not sign or key.lstrip("+") not in (*NAMES, "dataset.root") or "'" in text:
        return word
    try:
        OverridesParser.create().parse_override(word)
        return word
    except (HydraException, RecursionError):
        return f"{key}={','.join(repr(part) for part in text.split(','))}"


def with_protocol(overrides: Sequence[Override]) -> list[str]:
    """Return the words of a run, where Hydra is open, with its protocol's name made that of a file.

    ``protocol=P`` stands for ``P/DATASET_METHOD``, ``P/METHOD`` or ``P`` itself, the first that there is. Each is a
    file of Hydra's, so that the words given back say all and compose as they stand.
    """
    chosen = {"dataset": "cifar10", "method": "dst"}  # where no word says them
    chosen |= {o.key_or_group: o.value() for o in overrides if o.key_or_group in (*chosen, PROTOCOL)}
    words = [o.input_line or "" for o in overrides]
    name, method = chosen.get(PROTOCOL), chosen["method"]
    if not isinstance(name, str) or "/" in name:
        return words
    files = (f"{name}/{chosen['dataset']}_{method}", f"{name}/{method}", name)
    found = next((file for file in files if file in protocols()), name)
    return [f"{PROTOCOL}={found}" if o.key_or_group == PROTOCOL else w for o, w in zip(overrides, words, strict=True)]


def protocols() -> list[str]:
    """Name every file of every protocol, ``heddes2024`` and ``heddes2024/gse``, where Hydra is open."""
    papers = options_of(PROTOCOL)
    return [*papers, *(f"{p}/{m}" for p in papers for m in options_of(f"{PROTOCOL}/{p}"))]


def options_of(group: str) -> tuple[str, ...]:
    """Name the files of a group, where Hydra is open."""
    return _options_of(GlobalHydra.instance().config_loader(), group)


@lru_cache(maxsize=64)
def _options_of(loader: ConfigLoader, group: str) -> tuple[str, ...]:
    return tuple(loader.get_group_options(group))  # for which Hydra copies all that it has read: 10 ms


def without_nulls(overrides: Sequence[str]) -> list[str]:
    """Spell ``allocation=null``, and so every group that may have no option, as Hydra does: ``~allocation``.

    And ``~threads`` as ``threads=null``: of a setting that is null Hydra finds nothing to delete.
    """
    return [_without_null(o, word) for o, word in zip(parse(overrides), overrides, strict=True)]


def _without_null(override: Override, word: str) -> str:
    key = override.key_or_group
    if override.is_delete():
        return f"{key}=null" if key in DEFAULTS and DEFAULTS[key] is None else word
    return f"~{key}" if key in (*OPTIONAL, PROTOCOL) and override.value() is None else word


def words(values: Mapping[str, Any]) -> list[str]:
    """Return the overrides that set the values of a sweep file, by key; ``None`` unsets.

    Raises:
        ConfigError: a name that is not text.
    """
    check_names(values)
    return [f"~{key}" if value is None else f"{key}={value}" for key, value in values.items()]


def check_names(values: Mapping[str, Any]) -> None:
    """Check that names in a file are text to YAML, which reads ``2026_11_26`` and ``12e4567`` as numbers.

    Raises:
        ConfigError: one is not, and what was written is lost.
    """
    for key, value in values.items():
        if key in (*NAMES, *GROUPS) and isinstance(value, int | float):
            raise ConfigError(f"{key}: {value} in a sweep file is not read as text by YAML: write it in quotes")


def as_typed(override: Override) -> list[str]:
    """Return the values of an override as they were typed, where Hydra's grammar reads a number or a truth in one."""
    text = (override.input_line or "").partition("=")[2]
    if not override.is_sweep_override():
        return [text] if isinstance(override.value(), int | float) else [override.get_value_element_as_str()]
    found = override.value()
    if isinstance(found, RangeSweep) and (found.stop - found.start) / (found.step or 1) > MOST_RUNS:  # type: ignore[operator]
        raise ConfigError(f"{override.input_line} lists more than {MOST_RUNS:,} values")
    values = list(override.sweep_string_iterator())
    typed = [part.strip() for part in text.split(",")]
    plain = len(typed) == len(values) and not set(text) & set("'\"[](){}\\")
    return typed if plain else values


def several(override: Override) -> ConfigError:
    """Return the error of a word that lists values, where there is one run."""
    key, _, text = (override.input_line or "").partition("=")
    instead = f", or write tracker=[{text}] for one run with all of them" if key == "tracker" else ""
    return ConfigError(f"{key}={text} lists several values: put -m before it to sweep over them{instead}")


def axes(overrides: Iterable[Override]) -> dict[str, list[str]]:
    """Return the overrides of each key: one for every value it lists."""
    found = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_delete():
            words = [override.input_line or ""]
        elif override.is_discrete_sweep():
            words = [f"{key}={value}" for value in as_typed(override)]
        elif override.is_sweep_override():
            raise ConfigError(f"{override.input_line} is infinite: list its values, or add hydra/sweeper=optuna")
        else:
            words = [f"{key}={as_typed(override)[0]}"]
        found[key.lstrip("+~")] = words
    return found


def texts(overrides: Iterable[Override]) -> dict[str, str]:
    """Return the text of every value that Hydra's grammar reads as a number or a truth, by its key."""
    single = (o for o in overrides if not o.is_delete() and not o.is_sweep_override())
    return {o.get_key_element().lstrip("+"): as_typed(o)[0] for o in single if isinstance(o.value(), int | float)}


def quoted(override: Override) -> str:
    """Return an override as typed; a name that looks like a number, of an option or another, in quotes."""
    word = override.input_line or ""
    key, _, text = word.partition("=")
    number = override.key_or_group in (*GROUPS, *NAMES) and override.value_type is not None and key in texts([override])
    return f"{key}='{text}'" if number else word


def trusted(words: Sequence[str]) -> list[str]:
    """Return the packages that ``trusted=[PACKAGE]`` among the words names.

    Raises:
        ConfigError: it is no list of names.
    """
    found: list[str] = []
    for override in parse([word for word in words if "trusted" in word]):
        if override.get_key_element().lstrip("+") == "trusted":
            value = override.value()
            found = [str(item) for item in (value if isinstance(value, list) else [value])]
    if bad := [name for name in found if not name.isidentifier()]:
        raise ConfigError(f"trusted={bad[0]} must be a list of packages by their top-level names, such as [timm]")
    return found


def check_typed(words: Sequence[Override], choices: Any) -> None:
    """Refuse words that set what another optimizer than the one chosen would read.

    Raises:
        ConfigError: one does, or a word that is true or false is neither.
    """
    for word in words:
        truth = getattr(SETTINGS.get(word.key_or_group), "type", "") == "bool" and not word.is_delete()
        if truth and word.value() not in (True, False):
            raise ConfigError(f"{word.input_line} must be true or false")
        group, _, rest = word.get_key_element().lstrip("+~").partition(".")
        if group == "recipe" and rest and rest.partition(".")[0] != choices.get("optimizer"):
            raise ConfigError(f"{word.input_line} does nothing with optimizer={choices.get('optimizer')}")


def check_deleted(overrides: Sequence[Override]) -> None:
    """Check that no override needs what one before it removes.

    Raises:
        ConfigError: one does.
    """
    for place, gone in enumerate(overrides):
        for other in overrides[place + 1 :] if gone.is_delete() else ():
            if f"{other.key_or_group}.".startswith(f"{gone.key_or_group}."):
                raise ConfigError(f"{gone.input_line} removes what {other.input_line} changes: keep one of the two")
