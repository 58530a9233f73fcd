"""What may be typed in a place of a command line, read off what checks it: schema, options, records. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dstrun.cli.help import defaults, options
from dstrun.config.option import GROUPS, expanded
from dstrun.config.schema import SETTINGS
from dstrun.system.trouble import ConfigError

CHOSEN = (*GROUPS, "protocol")
"""What is chosen by a name of a file."""


def values(key: str, text: str, before: Sequence[str] = (), folders: Sequence[str] = ()) -> list[str]:
    """Return what a setting may be set to; after those of a list that stand there.

    Args:
        key: a setting, a group, or a setting of an option, ``optimizer.nesterov``.
        text: what of the value is typed.
        before: the words before it, which may choose the option.
        folders: where a user's own options are.
    """
    if key == "init":
        return runs(text)
    done, comma, _ = text.rpartition(",")
    opened = "[" if key == "tracker" and done.startswith("[") else ""
    there = done.removeprefix(opened).split(",")
    return [f"{done}{comma}{value}" for value in known(key, before, folders) if value not in there]


def known(key: str, before: Sequence[str] = (), folders: Sequence[str] = ()) -> list[str]:
    """Return all values of a setting; none where it is a number or a text."""
    if key in CHOSEN:
        return options(key, folders)
    if key in SETTINGS:
        item = SETTINGS[key]
        bound = item.metadata["bound"]
        bound = bound() if key == "tracker" else bound
        return list(bound) if isinstance(bound, tuple) else ["true", "false"] if item.type == "bool" else []
    group, dot, setting = key.partition(".")
    if not dot or group not in GROUPS:
        return []
    from dstrun.cli.described import choices

    typed = [word.partition("=")[2].split(",") for word in before if word.startswith(f"{group}=")]
    usual = [defaults()[group]] if group in defaults() else []
    for chosen in (typed[-1] if typed else usual, options(group, folders)):
        if found := choices(group, setting, chosen, folders):
            return found
    return []


def runs(text: str) -> list[str]:
    """Return the runs that a word may become: ids below results, or folders once one is typed."""
    from dstrun.report import load

    root = Path(expanded(text.rpartition("/")[0] or "/")) if "/" in text else Path("results")
    with suppress(ConfigError):
        folders = [Path(folder) for folder, names in load.find(root) if load.is_run(names)]
        here = text.rpartition("/")[0].rstrip("/") or "/"
        return sorted(f"{here}/{f.relative_to(root)}" if "/" in text else f.name for f in folders)
    return []


def conditions(text: str, results: Sequence[str]) -> Iterator[str]:
    """Yield the conditions on runs that ``where=`` may begin with: a field, or a field and its values.

    Args:
        text: what of it is typed.
        results: the folders of the runs.
    """
    field, sign, value = text.partition(":")
    if sign:
        name, not_ = field.removesuffix("!"), "!" if field.endswith("!") else ""
        done, comma, _ = value.rpartition(",")
        yield from (f"{name}{not_}:{done}{comma}{found}" for found in _of_field(name) if found not in done.split(","))
        return
    yield from (f"{name}:" if _of_field(name) else name for name in fields(results))


def _of_field(name: str) -> Sequence[str]:
    """Return the values of a field of runs, as far as they are known without one."""
    if name == "state":  # of a run; the setting of this name is its optimizer's
        from dstrun.report.status import STATES

        return [state for state in STATES if " " not in state]
    return known(name)


def listed_fields(text: str, results: Sequence[str]) -> list[str]:
    """Return the lists of fields that ``rows=`` and the like may begin with."""
    done, comma, _ = text.rpartition(",")
    return [f"{done}{comma}{name}" for name in fields(results) if name not in done.split(",")]


def fields(results: Iterable[str]) -> list[str]:
    """Name the fields of runs: those that all have, the settings, and what a record of theirs holds."""
    from dstrun.report import fields, load

    first: list[load.Run] = []
    for root in results:
        with suppress(ConfigError):
            at = next((Path(f) for f, names in load.find(root) if "record.json" in names), None)
            first += [load.read(at, {"record.json"})] if at else []
    return [name for name in dict.fromkeys([*fields.names(first), *SETTINGS]) if not name.endswith("_target_")]
