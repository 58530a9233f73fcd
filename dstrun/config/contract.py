"""What an option must be: a mapping with a ``_target_``, whose class offers what its group needs. No torch."""

from __future__ import annotations

import ast
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from dstrun.config import identity, option, plain
from dstrun.config.option import nearest
from dstrun.system.trouble import ConfigError

OFFERS = {
    "model": ("build",),
    "dataset": (
        "open", "found", "checksum", "train_images", "image", "classes", "train_count", "test_count", "flip", "augment",
    ),
    "method": ("procedure", "parts", "scopes", "start", "why", "network", "epochs", "course"),
    "prune": ("score", "needs_gradient"),
    "grow": ("candidates", "score", "cost", "regrow", "aggregates"),
    "subset": ("factors", "aggregates"),
    "allocation": ("counts", "words"),
    "schedule": ("fraction_at", "steps"),
    "optimizer": ("build", "lr_at", "weight_decay", "decay"),
    "loss": ("build",),
}  # fmt: skip
"""What the options of a group have, by name; CONTRIBUTING.md says where each contract is written out."""


def check_node(group: str, node: Any, said: str, file: str = "") -> None:
    """Check what a yaml file says of an option, before its class is looked at.

    Args:
        group: of the option.
        node: what was composed; ``None`` where there is no option.
        said: ``model=mine``.
        file: of a user's own that says it.

    Raises:
        ConfigError: said in one sentence.
    """
    if node is None:
        return
    if not isinstance(node, Mapping):
        where = "" if file else f": write {group}=NAME, for {group}/NAME.yaml in your --config-dir"
        raise ConfigError(f"{said} must hold settings with _target_, a class, and holds {_short(node)}{where}")
    target = node.get("_target_")
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        lacks = "has no _target_" if target is None else f"has _target_: {_short(target)}"
        raise ConfigError(f"{said} {lacks}: it must name a class, as _target_: module.Class")
    for key in node:
        if str(key).startswith("_") and key != "_target_":
            raise ConfigError(f"{said}: {key} is not a setting of this {group}")
    if plain.is_unknown(target):
        raise plain.unknown_name(target, file or said)
    if plain.is_plain(group, target):
        return plain.check(group, node, file or said)
    for key, value in node.items():
        if key in OFFERS and value is not None:
            check_node(str(key), value, f"{group}.{key}")
    if group == "model":
        _check_network(node, target, said)


def _check_network(node: Mapping[str, Any], target: str, said: str) -> None:
    """Check a network by its source, as importing it would load torch; a class that is elsewhere is left to Python.

    Raises:
        ConfigError: there is no such module or class, it has no ``build``, or no setting of a name.
    """
    module, _, name = target.rpartition(".")
    tree = _tree(module, said)
    if tree is None:
        return
    classes = {part.name: part for part in tree.body if isinstance(part, ast.ClassDef)}
    if name not in classes:
        if name not in _bound(tree):
            raise ConfigError(f"{said}: {module} has no class {name}{nearest(name, classes)}")
        return
    found = classes[name]
    methods = {part.name for part in found.body if isinstance(part, ast.FunctionDef)}
    if not found.bases and "build" not in methods:
        raise ConfigError(f"{said}: {target} has no build, which a model must have (CONTRIBUTING.md)")
    known = {line.target.id: line for line in found.body if isinstance(line, ast.AnnAssign) and _named(line)}  # type: ignore
    checked = any(ast.unparse(mark).split(".")[-1].startswith(("option", "dataclass")) for mark in found.decorator_list)
    if checked and not found.bases:
        for key, value in node.items():
            if key != "_target_" and key not in known:
                raise ConfigError(f"model.{key} is not a setting of this model{nearest(str(key), known)}")
            if key in known:
                _check_value(f"model.{key}", value, ast.unparse(known[key].annotation))


def _check_value(key: str, value: Any, annotation: str) -> None:
    """Check a value against an annotation that stands in a source; one with words that are unknown here is left."""
    try:
        hint = eval(annotation, {**vars(typing), **vars(option)})
    except (NameError, AttributeError, TypeError, SyntaxError):
        return
    option.check_value(key, value, hint)


def _named(line: ast.AnnAssign) -> bool:
    return isinstance(line.target, ast.Name) and not ast.unparse(line.annotation).startswith("ClassVar")


def _tree(module: str, said: str) -> ast.Module | None:
    """Parse a module of the user's own or of ours; ``None`` for that of a package which would have to be imported."""
    top = module.partition(".")[0]
    try:
        if find_spec(top) is None:
            raise ConfigError(f"{said}: there is no module {top} here, in the current folder or that of --config-dir")
        if top != module and top in ("torch", "torchvision"):  # whose import takes seconds
            raise ConfigError(f"{said}: {module} is PyTorch's own; write a class with build (CONTRIBUTING.md)")
        if find_spec(module) is None:
            raise ConfigError(f"{said}: there is no module {module}")
        return _parsed(identity._source(module))
    except SyntaxError as error:
        raise ConfigError(f"{said}: {module} is not valid Python: {error.msg} in line {error.lineno}") from error
    except ConfigError as error:
        if str(error).startswith(said):
            raise
        return None
    except Exception as error:  # a package of the user's own, which is imported to find what is in it
        raise ConfigError(f"{said}: importing {module} ends with {type(error).__name__}: {_short(error)}") from error


@lru_cache(maxsize=64)
def _parsed(text: bytes) -> ast.Module:
    return ast.parse(text)


def _bound(tree: ast.Module) -> set[str]:
    """Name what a module has besides classes: imported, or assigned."""
    names = {"*"} & {alias.name for part in ast.walk(tree) if isinstance(part, ast.ImportFrom) for alias in part.names}
    if names or any(isinstance(part, ast.FunctionDef) and part.name == "__getattr__" for part in tree.body):
        return _Everything()
    for part in ast.walk(tree):
        if isinstance(part, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in part.names}
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            names.add(part.name)
    return names


class _Everything(set[str]):
    """Of a module that may have any name."""

    def __contains__(self, name: object) -> bool:
        return True


def check_option(group: str, made: Any, target: str) -> None:
    """Check that an option has what its group asks for.

    Raises:
        ConfigError: naming what it lacks.
    """
    cls = made if isinstance(made, type) else type(made)
    known = {*dir(cls), *(f.name for f in (fields(cls) if is_dataclass(cls) else ())), *getattr(made, "__dict__", ())}
    if lacks := [name for name in OFFERS[group] if name not in known]:
        raise ConfigError(f"{group}: {target} lacks {', '.join(lacks)}, which a {group} must have (CONTRIBUTING.md)")


def sentence(error: BaseException, group: str, target: str) -> ConfigError | None:
    """Return why an option cannot be built; ``None`` where that is a fault of one of ours."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__  # type: ignore[assignment]
    for cause in chain:
        if isinstance(cause, ConfigError):
            return ConfigError(str(cause))
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if isinstance(cause, TypeError) and unknown:
            near = nearest(unknown[1], identity.known_fields(target))
            return ConfigError(f"{group}.{unknown[1]} is not a setting of this {group}{near}")
    last = chain[-1]
    module, _, name = target.rpartition(".")
    if isinstance(cls := getattr(sys.modules.get(module), name, None), type) and not target.startswith(identity.OWN):
        try:
            check_option(group, cls, target)
        except ConfigError as lacking:
            return lacking
    if target.startswith(identity.OWN) and not isinstance(last, TypeError | ImportError | AttributeError):
        return None
    what = "found" if "Error locating target" in str(chain[0]) else "built"
    return ConfigError(f"{group}: {target} cannot be {what}: {_short(last)}")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return (text if len(text) <= 120 else f"{text[:117]}...") or type(value).__name__
