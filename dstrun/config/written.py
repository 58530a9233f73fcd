"""What a class or function is, from its source, followed through imports and bases; imports nothing. No torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import MISSING
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dstrun.config import trust

DEEP = 12
"""How many imports or bases are followed."""


class Written(NamedTuple):
    """A class or a function, and the module that it is written in."""

    module: str
    node: ast.ClassDef | ast.FunctionDef


class Arguments(NamedTuple):
    """What may be given by name.

    Attributes:
        defaults: of each; ``MISSING`` where there is none, ``...`` where it is no literal.
        more: whether any other name is taken, or it is not known which.
    """

    defaults: dict[str, Any]
    more: bool

    def takes(self, name: str) -> bool:
        """Return whether an argument may be given."""
        return self.more or name in self.defaults


def find(target: str, deep: int = 0) -> Written | None:
    """Find a class or a function, wherever its module has it from; ``None`` where no source shows it."""
    module, _, name = target.rpartition(".")
    file = trust.locate(module) if module else None
    if file is None or deep > DEEP:
        return None
    tree = _tree(file)
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Written(module, node)
    for alias, source in _aliases(module, tree):
        if (alias.asname or alias.name) == name:
            return find(f"{source}.{alias.name}", deep + 1)
    stars = [source for alias, source in _aliases(module, tree) if alias.name == "*"]
    return next(filter(None, (find(f"{source}.{name}", deep + 1) for source in stars)), None)


def names(module: str, deep: int = 0) -> set[str]:
    """Name what a module offers: classes and functions, those that it imports too."""
    file = trust.locate(module)
    if file is None or deep > DEEP:
        return set()
    tree = _tree(file)
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for alias, source in _aliases(module, tree):
        found |= names(source, deep + 1) if alias.name == "*" else {alias.asname or alias.name}
    return {name for name in found if not name.startswith("_")}


def constant(module: str, name: str) -> ast.expr | None:
    """Return what a module assigns to a name at its top; ``None`` where it is not written there."""
    file = trust.locate(module)
    for node in _tree(file).body if file else ():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(_is_name(t) and t.id == name for t in targets if t):  # type: ignore[attr-defined]
            return node.value
    return None


def lineage(found: Written) -> tuple[list[Written], list[str]]:
    """Return a class with those that it is derived from, and the names of bases that are PyTorch's or unknown."""
    classes, outside = [found], []
    for cls in classes:
        for base in cls.node.bases if isinstance(cls.node, ast.ClassDef) and len(classes) < DEEP else ():
            name = _dotted(cls.module, base)
            above = None if name.startswith("torch.") else find(name)
            if above is not None and isinstance(above.node, ast.ClassDef):
                classes.append(above)
            elif name != "object":
                outside.append(name)
    return classes, outside


def members(found: Written) -> set[str]:
    """Name the methods and the fields that a class has, by its own source and those of its bases."""
    bodies = [node for cls in lineage(found)[0] for node in cls.node.body]
    named = {node.name for node in bodies if isinstance(node, ast.FunctionDef)}
    return named | {node.target.id for node in bodies if isinstance(node, ast.AnnAssign) and _is_name(node.target)}  # type: ignore[union-attr]


def arguments(target: str) -> Arguments:
    """Return what a class or a function takes when it is called."""
    found = find(target)
    if found is None:
        return Arguments({}, True)
    if isinstance(found.node, ast.FunctionDef):
        return _of(found.node)
    classes, outside = lineage(found)
    for cls in classes:
        for node in cls.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return _of(node, skip=1)
    made = [cls for cls in classes if any("dataclass" in ast.unparse(mark) for mark in cls.node.decorator_list)]
    lines = [node for cls in reversed(made) for node in cls.node.body if isinstance(node, ast.AnnAssign)]
    fields = {line.target.id: _literal(line.value) for line in lines if _is_name(line.target)}  # type: ignore[union-attr]
    return Arguments(fields, bool(outside) and not made)


def _aliases(module: str, tree: ast.Module) -> Iterator[tuple[ast.alias, str]]:
    """Yield what the top of a module imports by name, and the module that it is from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from ((alias, origin(module, node)) for alias in node.names)


def origin(module: str, node: ast.ImportFrom) -> str:
    """Return the module that an import in a module is from, by its full name."""
    here = [*module.split("."), *([""] if trust.is_package(module) else [])]
    above = here[: -node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _of(node: ast.FunctionDef, skip: int = 0) -> Arguments:
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    values: list[Any] = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    pairs = [*list(zip(plain, values, strict=True))[skip:], *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return Arguments({argument.arg: _literal(value) for argument, value in pairs}, given.kwarg is not None)


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return MISSING
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def _dotted(module: str, base: ast.expr) -> str:
    """Return the full name of a base as it stands in a module."""
    text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    head, dot, rest = text.partition(".")
    file = trust.locate(module)
    for node in _imports(file) if file else ():
        for alias in node.names:
            if alias.name != "*" and (alias.asname or alias.name) == head:
                name = alias.name if isinstance(node, ast.Import) else f"{origin(module, node)}.{alias.name}"
                return f"{name}{dot}{rest}"
    return text if dot else f"{module}.{text}" if find(f"{module}.{text}") else text


def _imports(file: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(_tree(file)) if isinstance(node, ast.Import | ast.ImportFrom))


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _tree(file: Path) -> ast.Module:
    """Parse a file; an empty module where it is no Python."""
    try:
        found = file.stat()
        return _parsed(file, found.st_mtime_ns, found.st_size)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


@lru_cache(maxsize=256)
def _parsed(file: Path, changed: int, size: int) -> ast.Module:
    return ast.parse(file.read_bytes())
