"""What an option is, and what its settings mean: its yaml, and the source of its class, which is not imported."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from dstrun.cli.help import GROUP, HERE, WIDTH, defaults, entry, options
from dstrun.config.option import GROUPS, Above, AtLeast, Bound, OneOf, Within
from dstrun.config.trust import locate
from dstrun.config.written import Written, arguments, constant, find, lineage

PAPER = "# Paper: "
"""How the line of a preset begins that names its paper: ``# Paper: name, authors year; what else``."""

KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a name"}
BOOLEAN = ("true", "false")
MARKS: Mapping[str, Callable[..., Any]] = {mark.__name__: mark for mark in (Above, AtLeast, OneOf, Within)}


def group(name: str, folders: Sequence[str]) -> str:
    """Return what a group is, and its options, a line each."""
    chosen = defaults().get(name, "null")
    known = options(name, folders)
    lines = [f"{name}=NAME: {GROUP[name]}", f"Default: {name}={chosen}", ""]
    if not known:
        return "\n".join(lines[:2])
    wide = min(18, max(map(len, known)) + 1)
    lines += [entry(option, _summary(name, option, folders), wide).partition("\n")[0] for option in known]
    lines += ["", f"dstrun help {name}={chosen if chosen in known else known[0]} shows an option and its settings."]
    return "\n".join(lines)


def option(name: str, chosen: str, folders: Sequence[str]) -> str:
    """Return what an option is, and its settings with their defaults."""
    source = _source(name, chosen, folders)
    held, classes = _held(source), _classes(name, source)
    lines = [f"{name}={chosen}"]
    comments = [line.removeprefix("# ") for line in source.splitlines() if re.match(r"# (?!@)", line)]
    paper = [line for line in comments if line.startswith(PAPER.removeprefix("# "))]
    said = [*paper, " ".join(line for line in comments if line not in paper)]
    docs = [ast.get_docstring(cls.node) or "" for at, cls in enumerate(classes) if at == 0 or _annotated(cls)]
    lines += ["", *_joined([_paragraphs(part) for part in (*said, *docs) if part])]
    if fields := _fields(name, held, classes):
        lines += ["", "Settings, with their defaults:"]
        lines += [entry(f"{name}.{key}={value}", what, 34) for key, (value, what) in fields.items()]
    if sets := _sets(name, held):
        lines += ["", "It sets:", *textwrap.wrap(" ".join(sets), WIDTH, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines)


def choices(name: str, key: str, chosen: Sequence[str], folders: Sequence[str] = ()) -> list[str]:
    """List the values that a setting of options may have; none where it is a number or a text.

    Args:
        name: of the group.
        key: of the setting.
        chosen: the options; of others, their settings are not looked at.
        folders: where a user's own options are.
    """
    found: dict[str, None] = {}
    for option in chosen:
        for cls in _classes(name, _source(name, option, folders)):
            if line := _annotated(cls).get(key):
                mark = _mark(line.annotation, cls.module)
                named = {node.id for node in ast.walk(line.annotation) if isinstance(node, ast.Name)}
                found |= dict.fromkeys(mark if isinstance(mark, tuple) else BOOLEAN if "bool" in named else ())
                break
    return list(found)


def _summary(name: str, chosen: str, folders: Sequence[str]) -> str:
    """Return a line on an option: its paper, or what its class says first, shortened."""
    source = _source(name, chosen, folders)
    if PAPER in source:
        what = source.partition(PAPER)[2].partition("\n")[0]
        what = what.removeprefix("none: ") if what.startswith("none: ") else what.partition(";")[0]
    elif comments := re.findall(r"^# (?!@)(.*)$", source, re.MULTILINE):
        what = comments[0]
    elif classes := _classes(name, source):
        tree = ast.parse(file.read_bytes()) if (file := locate(classes[0].module)) else classes[0].node
        whole = ast.get_docstring(tree if name == "model" else classes[0].node) or ""
        what = _unquoted(whole.partition("\n\n")[0])
        what = re.split("[:;]", what)[0] if name == "model" else what
        what = " ".join([*_apart(name, chosen, folders), what])
    else:
        what = ""
    room = WIDTH - 4 - min(18, max(map(len, options(name, folders))) + 1)
    return textwrap.shorten(what, room, placeholder=" ...", break_on_hyphens=False)


def _apart(name: str, chosen: str, folders: Sequence[str]) -> list[str]:
    """Return the settings by which an option differs from others of its class: ``depth=110:``."""
    mine = _held(_source(name, chosen, folders))
    others = [_held(_source(name, option, folders)) for option in options(name, folders)]
    alike = [held for held in others if held.get("_target_") == mine.get("_target_")]
    words = [f"{key}={_shown(value)}" for key, value in mine.items() if any(held.get(key) != value for held in alike)]
    return [f"{words[0]}:"] if words else []


def _source(name: str, chosen: str, folders: Sequence[str]) -> str:
    """Read the yaml of an option."""
    for folder in (files(HERE), *map(Path, folders)):
        file = folder.joinpath(name, f"{chosen}.yaml")
        if file.is_file():
            return file.read_bytes().decode("utf-8", "replace")
    return ""


def _held(source: str) -> dict[str, Any]:
    """Return the settings of a yaml; none where it cannot be read."""
    try:
        found = yaml.load(source, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _classes(name: str, source: str) -> list[Written]:
    """Return the class of an option and those it is derived from; a preset's is that of the method it is made of."""
    held = _held(source)
    own = held.get(name)
    target = held.get("_target_") or (own.get("_target_") if isinstance(own, Mapping) else None)
    for part in held.get("defaults", []) if target is None else []:
        if isinstance(part, str) and part.endswith(f"@{name}"):
            target = _held(_source(name, part.partition("@")[0], ())).get("_target_")
    if not isinstance(target, str) or (found := find(target)) is None:
        return []
    return [cls for cls in lineage(found)[0] if cls.module.partition(".")[0] != "typing"] if found else []


def _fields(name: str, held: Mapping[str, Any], classes: Sequence[Written]) -> dict[str, tuple[str, str]]:
    """Return the settings of an option by name: the default, and what it takes."""
    found: dict[str, tuple[str, str]] = {}
    values = held.get(name) if "_target_" not in held else held
    values = values if isinstance(values, Mapping) else {}
    for cls in classes:
        for key, line in _annotated(cls).items():
            plain = ast.unparse(line.value) if line.value else "null"
            found.setdefault(key, (_shown(values.get(key, _literal(plain))), _takes(line.annotation, cls.module)))
    if not found and classes:  # a class that was not written for dstrun
        taken = arguments(f"{classes[0].module}.{classes[0].node.name}").defaults
        found = {
            key: ("???" if value is MISSING else _shown(values.get(key, value)), "") for key, value in taken.items()
        }
    for key, value in values.items():
        if not key.startswith("_") and key not in found and key not in GROUPS and key != "defaults":
            found[key] = (_shown(value), "")
    order = {key: number for number, key in enumerate(values)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _annotated(cls: Written) -> dict[str, ast.AnnAssign]:
    """Return the fields that a class has itself and that are settings, by name."""
    lines = [node for node in cls.node.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    named = {line.target.id: line for line in lines if "ClassVar" not in ast.unparse(line.annotation)}  # type: ignore[union-attr]
    return {name: line for name, line in named.items() if name not in GROUPS and not name.startswith("_")}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def _shown(value: Any) -> str:
    """Return a default as one types it; of a value that a recipe may say, what it is where none does."""
    if isinstance(value, str) and (recipe := re.fullmatch(r"\$\{oc\.select:[^,]+,(.*)\}", value)):
        return recipe[1]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _takes(kind: ast.expr, module: str) -> str:
    """Return what a setting takes, by its annotation as it is written in a module."""
    names, mark = {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)}, _mark(kind, module)
    if isinstance(mark, tuple):
        plain = "|".join(mark)
    else:
        bound = f" {_bare(mark.text)}" if mark else ""
        plain = next((word for name, word in KINDS.items() if name in names), "a number" if bound else "")
        plain = ("numbers" if "tuple" in names and plain else plain) + bound
    return plain + (", or null" if "None" in ast.unparse(kind) and plain else "")


def _mark(kind: ast.expr, module: str) -> Bound | tuple[str, ...] | None:
    """Return the bound of an annotation as it is written in a module; ``None`` where it has none."""
    found = None
    for node in ast.walk(kind):
        if isinstance(node, ast.Name) and node.id == "Share":
            found = Within(0, 1)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
            try:
                given = [value for argument in node.args for value in _given(argument, module)]
                more = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            except ValueError:  # names that stand elsewhere
                continue
            found = MARKS[node.func.id](*given, **more)
    return found


def _given(argument: ast.expr, module: str) -> list[Any]:
    """Return what an argument gives: itself, or what a starred name of its module holds."""
    if not isinstance(argument, ast.Starred):
        return [ast.literal_eval(argument)]
    held = constant(module, ast.unparse(argument.value))
    parts = held.keys if isinstance(held, ast.Dict) else held.elts if isinstance(held, ast.Tuple | ast.List) else None
    if parts is None:
        raise ValueError(f"{ast.unparse(argument)} is not written here")
    return [ast.literal_eval(part) for part in parts if part is not None]


def _bare(text: str) -> str:
    return re.sub("^must (be |lie )?", "", text)


def _sets(name: str, held: Mapping[str, Any]) -> list[str]:
    """Return what a preset chooses and sets beside its own settings."""
    if "_target_" in held:
        return []
    chosen = [part for part in held.get("defaults", []) if isinstance(part, dict)]
    words = [f"{key.rpartition('/')[2]}={_shown(value)}" for part in chosen for key, value in part.items()]
    for key, value in held.items():
        if key not in ("defaults", name):
            words += _words(key, value)
    return words


def _words(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [word for inner, held in value.items() for word in _words(f"{key}.{inner}", held)]
    return [f"{key}={_shown(value)}"]


def _unquoted(text: str) -> str:
    return " ".join(text.replace("``", "").split())


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring, in lines of ``WIDTH``."""
    parts = [_unquoted(part) for part in text.split("\n\n") if not part.lstrip().startswith(("Attributes:", "Args:"))]
    return _joined([textwrap.wrap(part, WIDTH, break_on_hyphens=False) for part in parts])


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    return [line for number, part in enumerate(parts) for line in ([""] if number and part else []) + [*part]]
