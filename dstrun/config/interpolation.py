"""What ``${...}`` may do in a configuration: read no environment, and make no more than a file may hold. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, base
from omegaconf.base import Container, Node
from omegaconf.errors import InterpolationResolutionError, InterpolationValidationError
from omegaconf.grammar_visitor import GrammarVisitor

from dstrun.config.diagnose import keys
from dstrun.config.option import nearest
from dstrun.config.own import here
from dstrun.system.bounded import YAML_BYTES
from dstrun.system.trouble import ConfigError

# Parsing takes two thirds of the time of resolving a configuration; a parsed interpolation is only read.
base.parse = lru_cache(maxsize=4096)(base.parse)  # pyright: ignore[reportPrivateImportUsage]

LOOKUPS = 5_000
"""Interpolations that one configuration may resolve; one inside others counts whenever it is met."""

LONG = 200
"""Letters of a value that are shown."""

SAID = (
    (r"Interpolation key '(.*)' not found", r"there is no setting \1"),
    (
        r"ConfigKeyError while resolving interpolation: Error resolving key '(\.+).*",
        r"\1 points outside the configuration",
    ),
    (r"MissingMandatoryValue while resolving interpolation: Missing mandatory value: (.*)", r"\1 has no value (???)"),
    (r"Unsupported interpolation type (.*)", r"there is no resolver \1"),
    (r"Recursive interpolation detected", "it refers to itself"),
    (r"Interpolation to parent node detected", "it refers to its own parent"),
    (r"\W*Environment variable '(.*)' not found\W*", r"there is no \1 in the environment"),
    (r"Value '(.*)' of type '.*' could not be converted to Integer", r"\1 is not a whole number"),
    (r"Value '(.*)' of type '.*' could not be converted to Float", r"\1 is not a number"),
    (r"Value '(.*)' .* is not a valid bool.*", r"\1 is neither true nor false"),
    (r"Cannot convert '.*' to string: .*", "it must be a name"),
    (r"maximum recursion depth exceeded.*", "it is nested too deeply"),
    (r"In oc.deprecated resolver at '.*': Key not found: '(.*)'", r"there is no setting \1"),
)
"""What OmegaConf says, and our words for it."""


class Unresolved(ConfigError):
    """An interpolation stands for nothing, or for too much.

    Args:
        key: the setting it stands in.
        text: of the setting.
        why: it cannot be resolved.
        file: that holds it, where that is known.
    """

    def __init__(self, key: str, text: str, why: str, file: Path | None = None) -> None:
        self.key, self.text, self.why, self.file = key, text, why, file
        shown = text if len(text) < LONG else f"{text[:LONG]}..."
        place = f"{here(file)}: {key}: {shown}" if file else f"{key}={shown}"
        super().__init__(f"{place} cannot be resolved: {why}")


class _Bounds:
    """How much has been resolved, and where it was too much."""

    def __init__(self) -> None:
        self.lookups = self.letters = 0
        self.open: list[Node] = []
        self.over: Unresolved | None = None

    def enter(self, node: Node) -> None:
        """Count an interpolation before it is resolved."""
        self.open.append(node)
        self.lookups += 1
        if self.over or self.lookups > LOOKUPS:
            raise self._refused(f"more than {LOOKUPS:,} interpolations")

    def take(self, found: Any) -> Any:
        """Count what one stands for before it is joined with others, and return it."""
        self.letters += _size(found, YAML_BYTES)
        if self.letters > YAML_BYTES:
            raise self._refused(f"more than {YAML_BYTES:,} characters")
        return found

    def _refused(self, what: str) -> Unresolved:
        self.over = self.over or Unresolved(*_place(self.open[0]), f"it grows to {what}")
        return self.over


def _size(found: Any, most: int) -> int:
    """Count the letters and values of what an interpolation stands for; past ``most`` no more."""
    left, size = [found], 0
    while left and size <= most:
        node = left.pop()
        content = node._value() if isinstance(node, Node) else node
        size += len(content) if isinstance(content, str) else 1
        if isinstance(content, dict):
            left += content.values()
        elif isinstance(content, list | tuple):
            left += content
    return size


def _place(node: Node) -> tuple[str, str]:
    """Return the dotted name of a setting, and its text."""
    return node._get_full_key(""), str(node._value())


def _in_our_words(said: str) -> str:
    return next((match.expand(ours) for theirs, ours in SAID if (match := re.fullmatch(theirs, said))), said)


def _unresolved(error: BaseException) -> Unresolved | None:
    """Return what could not be resolved; ``None`` where an error is of something else."""
    cause: BaseException | None = error
    found: tuple[Node, BaseException] | None = None
    while cause is not None:
        said = re.match(r"While dereferencing interpolation '(.*?)': (.*)", str(cause))
        if said and isinstance(cause, InterpolationValidationError):
            return Unresolved(str(cause.full_key), said[1], _in_our_words(said[2]))
        if hasattr(cause, "node"):
            found = cause.node, cause  # type: ignore[attr-defined]  # the last is the innermost
        cause = cause.__cause__ or cause.__context__
    if found is None:
        return None
    node, cause = found
    if _place(node)[0] == "_dummy_":  # of a list of defaults, whose file Hydra names
        return None
    first = next(iter(str(cause).splitlines()), "") or type(cause).__name__
    why = _in_our_words(first)
    if why.startswith("there is no setting "):
        why += nearest(why.rpartition(" ")[2], keys(OmegaConf.to_container(node._get_root(), resolve=False)))
    return Unresolved(*_place(node), why)


@contextmanager
def resolving(*, environment: bool = False) -> Iterator[None]:
    """Resolve interpolations within bounds, and say where one stands that cannot be resolved.

    Args:
        environment: whether ``${oc.env:NAME}`` is read: what a configuration of a run holds is in its record.

    Raises:
        Unresolved: there is such a one.
    """
    bounds, usual = _Bounds(), Container.resolve_parse_tree

    def resolve(self: Container, parse_tree: Any, node: Node, memo: Any = None, key: Any = None) -> Any:
        def look_up(inter_key: str, memo: Any) -> Any:
            return bounds.take(self._resolve_node_interpolation(inter_key, memo))

        def compute(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> Any:
            if name == "hydra":
                raise ConfigError("Hydra's own settings are not read")
            if name == "oc.env" and not environment:
                raise ConfigError(
                    "environment variables are not read, as they would be in the record: set "
                    "KEY=$NAME on the command line"
                )
            return bounds.take(self._evaluate_custom_resolver(key, node, name, args, args_str))

        try:
            bounds.enter(node)
            return GrammarVisitor(look_up, compute, memo).visit(parse_tree)
        except Exception as error:
            if not hasattr(error, "node"):
                error.node = node  # type: ignore[attr-defined]
            if isinstance(error, InterpolationResolutionError):
                raise
            raise InterpolationResolutionError(str(error)) from error
        finally:
            bounds.open.pop()

    Container.resolve_parse_tree = resolve  # type: ignore[method-assign]
    try:
        yield
    except Exception as error:
        if found := bounds.over or _unresolved(error):
            raise found from error
        raise
    finally:
        Container.resolve_parse_tree = usual  # type: ignore[method-assign]
    if bounds.over:  # where a default has taken its place
        raise bounds.over
