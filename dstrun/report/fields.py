"""Fields of runs by the names that users know them by, and conditions on them: ``where=method:gse,rigl``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from dstrun.config import hint
from dstrun.config.option import GROUPS
from dstrun.config.upgrade import upgrade
from dstrun.report.load import EMERGES, Run, natural, number
from dstrun.report.style import order
from dstrun.system.trouble import ConfigError

SHORT = {"method": "label", "split": "accuracy.split"}
CHOICES = {*GROUPS, "scope", "backend", "precision"} - {"method"}
OF_RUN = ("id", "state", "sparsity", "seed")
"""Known of every run, finished or not, without looking a key up."""


@dataclass(frozen=True)
class Field:
    """A field of runs: its ``name`` as typed, and the dotted ``key`` of records where it stands."""

    name: str
    key: str

    def of(self, run: Run) -> Any:
        """Return a run's value; None where it has none. The sparsity is the one asked for (``Run.sparsity``)."""
        value = getattr(run, self.key) if self.key in OF_RUN else run.get(self.key)
        return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value

    @property
    def setting(self) -> str | None:
        """Name the setting that the field is, ``grow.gamma``; None for a choice or a result, which bring others."""
        if self.key in ("sparsity", "seed"):
            return self.key
        return self.key.removeprefix("config.") if self.key.startswith("config.") else None

    def text(self, value: Any) -> str:
        """Format a value for readers."""
        if value is None:
            return "-"
        if isinstance(value, bool):
            return str(value).lower()
        if self.key == "sparsity":
            return "emerges" if value == EMERGES else f"{100 * value:g}%" if value else "dense"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def rank(self, value: Any) -> tuple[Any, ...]:
        """Sort key of values: numbers by size, methods as in figures, none last."""
        if self.key == "label":
            return (0, *order(str(value)))
        known = number(value)
        return (2,) if value is None else (0, known) if known is not None else (1, natural(str(value)))


def resolve(name: str, runs: Sequence[Run], word: str) -> Field:
    """Find the field of a name: a group, a setting, a key of the record, or the end of one, as ``top1``.

    Args:
        name: as typed.
        runs: those that may have it.
        word: what it was typed for, as ``rows=``, to say in an error.

    Raises:
        ConfigError: no run has it, or several keys end so.
    """
    if name in OF_RUN:
        return Field(name, name)
    for key in (SHORT.get(name), f"choices.{name}" if name in CHOICES else None):
        if key:
            return Field(name, key)
    for key in (name, f"config.{name}"):
        if any(run.get(key) is not None and not isinstance(run.get(key), dict) for run in runs):
            return Field(name, key)
    known = list(dict.fromkeys(key for run in runs if run.record for key in _keys(run.record)))
    ends = [key for key in known if key.endswith(f".{name}")]
    if len(ends) == 1:
        return Field(name, ends[0])
    if ends:
        raise ConfigError(f"{word}{name} may be {', '.join(sorted(ends)[:5])}: name one of them")
    if not known:
        return Field(name, name)  # nothing is finished, and so nothing has it
    raise ConfigError(f"{word}{name} is not a field of these runs{hint.field(name, names(runs))}")


def typed(setting: str) -> str:
    """Return the name that ``resolve`` finds a setting by: ``state`` alone is the state of a run."""
    return f"config.{setting}" if setting in OF_RUN and setting not in ("sparsity", "seed") else setting


def names(runs: Iterable[Run]) -> list[str]:
    """Name the fields of runs, as one may type them: those that all have, and the keys of their records."""
    known = dict.fromkeys(key for run in runs if run.record for key in _keys(run.record))
    typed = (key.removeprefix("config.") for key in known)
    return list(dict.fromkeys([*SHORT, *sorted(CHOICES), *OF_RUN, *typed, *known]))


def _keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        elif not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
            yield f"{prefix}{key}"


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def where(runs: Sequence[Run], conditions: Iterable[str]) -> list[Run]:
    """Keep the runs that meet all conditions.

    Args:
        runs: finished or not; of an unfinished one the configuration is known.
        conditions: ``method:gse,rigl`` (any of these, ``*`` for anything), ``method!:dense`` (none of these),
            ``sparsity>=0.9``.

    Raises:
        ConfigError: a condition that is none, or a field that no run has.
    """
    tests = [_condition(condition, runs) for condition in conditions]
    keys = {field.key for field, _ in tests}
    kept = []
    for run in runs if tests else ():
        planned = run if run.record else outline(run, keys)
        if all(test(field.of(planned)) for field, test in tests):
            kept.append(run)
    return kept if tests else [*runs]


def _condition(condition: str, runs: Sequence[Run]) -> tuple[Field, Callable[[Any], bool]]:
    parts = re.fullmatch(r"([\w.]+)(!?:|>=|<=|>|<)(.*)", condition)
    if not parts:
        raise ConfigError(f"where={condition} is not a condition: write where=FIELD:VALUE,VALUE or where=FIELD>=VALUE")
    name, sign, text = parts.groups()
    field = resolve(name, [run for run in runs if run.record], "where=")
    if field.key == "state" and sign in (":", "!:") and text in {str(run.get("config.state")) for run in runs}:
        raise ConfigError(f"where={condition}: state is the state of a run; write where=config.state{sign}{text}")
    return field, _test(condition, sign, text)


def _test(condition: str, sign: str, text: str) -> Callable[[Any], bool]:
    if sign in COMPARE:
        try:
            bound = float(text)
        except ValueError:
            raise ConfigError(f"where={condition} compares with {text}, which is not a number") from None
        return lambda value: (known := number(value)) is not None and COMPARE[sign](known, bound)
    words = re.findall(r"(?:\[[^\]]*\]|[^,])+", text) or [""]
    return lambda value: any(_is(value, word) for word in words) == (sign == ":")


def _is(value: Any, word: str) -> bool:
    known = number(value)
    if known is not None and not isinstance(value, bool):
        try:
            return known == float(word)
        except ValueError:
            pass
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if word.startswith("[") and (text.startswith("[") or "," in word):  # a list, and no pattern
        return text.replace(" ", "") == word.replace(" ", "")
    return fnmatchcase(text, word)


IN_NAME = {"label", "choices.model", "choices.dataset", "sparsity", "seed", "id", "state"}
NAMED = re.compile(r"(?P<model>[^-]+)-(?P<dataset>[^-]+)-(?P<label>.+)-s(?P<sparsity>[\d.e-]+)-seed(?P<seed>\d+)-\w+")


def outline(run: Run, keys: Collection[str] | None) -> Run:
    """Return the part of a record that an unfinished run's configuration provides.

    Args:
        run: without a record.
        keys: what will be asked of it: where its name says all of them its file, slower to read, is left closed;
            None for everything.
    """
    named = NAMED.fullmatch(run.id)
    words = named.groupdict() if named else {}
    record: dict[str, Any] = {
        "label": words.get("label"),
        "choices": {key: words.get(key) for key in ("model", "dataset")},
        "config": {"sparsity": float(words["sparsity"])} if words else {},
        "seed": int(words["seed"]) if words else None,
    }
    if words and keys is not None and set(keys) <= IN_NAME:
        return replace(run, record=record)
    try:
        text = (run.folder / "config.yaml").read_bytes()
    except OSError:
        return replace(run, record=record)
    import yaml

    with suppress(yaml.YAMLError, AttributeError, KeyError, TypeError):
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        chosen = config.pop("choices")
        upgrade(config, chosen)
        chosen |= {key: config.get(key) for key in ("scope", "backend", "precision")}
        record |= {"choices": chosen, "config": config, "seed": config["seed"]}
    return replace(run, record=record)
