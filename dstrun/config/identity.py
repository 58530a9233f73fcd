"""What makes two runs the same experiment: every setting that decides a result, by its value. No torch, no Hydra.

Run ids (``record/folder.py``) and tables (``report/compare.py``) ask here, so that they cannot disagree.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from dstrun.config import trust, written
from dstrun.config.option import GROUPS
from dstrun.config.schema import Schema
from dstrun.system.trouble import ConfigError

VOLATILE = (
    "experiment", "results", "tracker", "wandb", "threads", "devices", "distributed", "retry", "fail_fast",
    "checkpoint", "step", "trusted", "dataset.root", "dataset.download", "dataset.workers",
)  # fmt: skip
"""Settings that cannot change a result."""

OWN = "dstrun."
"""How the modules of the options shipped begin; any other is a user's own."""

TOP = {f.name: f.default for f in fields(Schema) if f.metadata}
"""The default of every top-level setting."""

Fields = dict[str, Any]
"""The default of every field of an option by its name; ``MISSING`` where it has none."""


def identity(config: Mapping[str, Any], own: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return all that decides a result and is no default, by dotted name, so that new settings move no id.

    Args:
        config: resolved.
        own: the checksum of each module of a user's own, where it is on record; else it is taken now.

    Raises:
        ConfigError: the file of a user's own option is gone.
    """
    found = {key: by_value(value) for key, value, default in _flat(config) if value != default}
    return found | {f"code.{module}": digest for module, digest in (code(config) if own is None else own).items()}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides a result by dotted name; what an older record lacks has its default."""
    return {key: value for key, value, _ in _flat(config) if value is not MISSING}


def code(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums of the modules that options of a user's own come from, and of those of his that they import.

    Raises:
        ConfigError: there is no such file.
    """
    from hashlib import sha256

    found: dict[str, bytes] = {}
    mine = [target for target in targets(config) if not target.startswith(OWN) and not trust.is_library(target)]
    wanted = [target.rpartition(".")[0] for target in mine]
    for module in wanted:
        found[module] = _source(module)
    while wanted:
        module = wanted.pop()
        for name in _imports(module, found[module]):
            file = trust.locate(name)
            if name not in found and file is not None and trust.is_own(file):
                found[name] = _source(name)
                wanted.append(name)
    return {module: sha256(source).hexdigest()[:16] for module, source in sorted(found.items())}


def roots(config: Mapping[str, Any]) -> list[Path]:
    """Name the folders from which Python imports a user's own options, and those modules of his that they import."""
    found = {module: trust.locate(module) for module in code(config)}
    above = [(file, module.count(".") + trust.is_package(module)) for module, file in found.items() if file]
    return list(dict.fromkeys(file.absolute().parents[levels] for file, levels in above))


@lru_cache(maxsize=256)  # of a sweep, every run has the same
def _imports(module: str, source: bytes) -> tuple[str, ...]:
    """Name what a module imports, anywhere in it: modules, and names that may be modules of a package."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = written.origin(module, node)
            found += [name for name in (base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)) if name]
    parts = [name.split(".") for name in (module, *found)]  # importing a.b.c runs a and a.b
    return tuple(dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)))


def targets(config: Mapping[str, Any]) -> list[str]:
    """Name the classes of all options of a configuration."""
    return [str(node["_target_"]) for node in _options(config)]


def exists(target: str) -> bool:
    """Return whether there is a class of this name; that of a user's own, or of a network, is not imported."""
    return _class(target) is not None or bool(_bodies(target))


def _source(module: str) -> bytes:
    try:
        return (trust.locate(module) or Path()).read_bytes()  # a record may name anything: nothing is imported
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"_target_: {module} is not a module with a file: its code is part of the identity of a run"
        ) from error


def _options(node: Any) -> Iterator[Mapping[str, Any]]:
    """Find the options in a configuration, those inside others too."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _options(value)


Entry = tuple[str, Any, Any]
"""A setting: its dotted name, its value, and the value it has by default."""


def _flat(config: Mapping[str, Any]) -> list[Entry]:
    """Return every setting that is read."""
    entries, unread = _groups(json.dumps({group: config.get(group) for group in GROUPS}))
    top = {key: value for key, value in config.items() if key not in GROUPS and key not in unread}
    known = {key: default for key, default in TOP.items() if key not in unread}
    return [*_values(top, known, ""), *entries]


@lru_cache(maxsize=1024)  # of 10,000 runs, most have the same parts
def _groups(nodes: str) -> tuple[list[Entry], set[str]]:
    """Return the settings of all options, and what is not read of any group or at the top."""
    config = json.loads(nodes)
    parts = {group: _made(config[group]) for group in GROUPS}
    unread = {name for group, part in parts.items() for name in _unread(group, part, parts)} | {*VOLATILE}
    found = [entry for group in GROUPS if config[group] for entry in _option(config[group], f"{group}.", config)]
    return [entry for entry in found if entry[0] not in unread], unread


def _option(node: Any, prefix: str, config: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the settings of an option; a copy of a group inside another, as ``grow.subset`` is, is none."""
    if not isinstance(node, Mapping):
        yield prefix.rstrip("."), node, MISSING
        return
    target = str(node.get("_target_", ""))
    own = target.startswith(OWN)
    # One of ours is the same wherever a version keeps it.
    yield f"{prefix}_target_", target.rpartition(".")[2] if own else target, MISSING
    given = {key: value for key, value in node.items() if key != "_target_"}
    nested = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    known = {key: field for key, field in (known_fields(target) if own else {}).items() if key not in nested}
    yield from _values({key: value for key, value in given.items() if key not in nested}, known, prefix)
    for key, value in nested.items():
        if config.get(key) != value:
            yield from _option(value, f"{prefix}{key}.", config)


def _values(given: Mapping[str, Any], known: Fields, prefix: str) -> Iterator[Entry]:
    for key in (*given, *(key for key in known if key not in given)):
        default = _plain(known.get(key, MISSING))
        value = _plain(given.get(key, default))
        # Spelled as the default is, so that a table says the same whichever run it meets first.
        yield f"{prefix}{key}", float(value) if type(value) is int and isinstance(default, float) else value, default


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as records have them."""
    return [_plain(item) for item in value] if type(value) in (list, tuple) else value


def by_value(value: Any) -> Any:
    """Spell numbers in one way: 0.0 as 0, 1.0 as 1."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):  # most, and to ask for a mapping takes longer than the rest
        return value
    if isinstance(value, list):
        return [by_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): by_value(item) for key, item in value.items()}
    return value


def _made(node: Any) -> Any:
    """Build an option of ours as far as it can be, for its ``unread``; ``None`` for a network, which would load torch.

    Old records may hold what is refused today.
    """
    target = str(node.get("_target_", "")) if isinstance(node, dict) else ""
    cls, names = _class(target), known_fields(target)
    try:
        return cls and cls(**{key: value for key, value in node.items() if key in names})
    except (ConfigError, TypeError):
        return None


def _unread(group: str, part: Any, parts: Mapping[str, Any]) -> Collection[str]:
    """Name what an option says it does not read: its own settings, or top-level ones."""
    names = part.unread(parts) if hasattr(part, "unread") else ()
    own = {f.name for f in fields(part)} if names else ()
    return [f"{group}.{name}" if name in own else name for name in names]


@lru_cache(maxsize=256)
def known_fields(target: str) -> Fields:
    """Return the fields of an option of ours; none where this version lacks it."""
    cls = _class(target)
    if cls is not None:
        return {f.name: f.default for f in fields(cls)}
    return _written(target) if _is_network(target) else {}


def _is_network(target: str) -> bool:
    return target.startswith(f"{OWN}model.")


@lru_cache(maxsize=256)
def _class(target: str) -> type | None:
    """Import an option of ours; ``None`` where this version lacks it, and for a network, which would load torch."""
    module, _, name = target.rpartition(".")
    if not trust.is_option(target) or _is_network(target):
        return None
    try:
        cls = getattr(import_module(module), name, None)
    except ImportError:
        return None
    return cls if is_dataclass(cls) else None  # type: ignore[return-value]


def _written(target: str) -> Fields:
    """Read the fields of a class off its source; a default that is no literal counts as none."""
    found: Fields = {}
    for line in _lines(target):
        try:
            found[line.target.id] = MISSING if line.value is None else ast.literal_eval(line.value)  # type: ignore
        except ValueError:
            found[line.target.id] = MISSING  # type: ignore[union-attr]
    return found


def is_text(node: Any, name: str) -> bool:
    """Return whether a setting of an option is text by its annotation; its module is read, and not imported."""
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    kinds = [ast.unparse(line.annotation) for line in _lines(target) if line.target.id == name]  # type: ignore
    return any(kind == "str" or kind.startswith(("str |", "Annotated[str")) for kind in kinds)


@lru_cache(maxsize=256)
def _lines(target: str) -> list[ast.AnnAssign]:
    """Find the fields of a class in the source of its module; none where there is no such class."""
    lines = [line for body in _bodies(target) for line in body if isinstance(line, ast.AnnAssign)]
    return [x for x in lines if isinstance(x.target, ast.Name) and not ast.unparse(x.annotation).startswith("ClassVar")]


def _bodies(target: str) -> list[list[ast.stmt]]:
    """Find the class in the source of its module; none where there is no such class."""
    module, _, name = target.rpartition(".")
    try:
        tree = ast.parse(_source(module))
    except (ConfigError, SyntaxError):
        return []
    return [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
