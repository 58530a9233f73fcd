"""Parts not written for dstrun: which of them work, checked by their source, and how they are called."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, NamedTuple

from dstrun.config import identity, trust
from dstrun.config.option import nearest
from dstrun.config.written import Written, arguments, find, lineage, members, names
from dstrun.system.trouble import ConfigError

PAGE = "docs/own_parts.md"


class Kind(NamedTuple):
    """What a plain part of a group is.

    Attributes:
        adapter: the option that stands for it.
        what: a class of it is, in words, as a sentence says that one is none.
        roots: how the names of classes begin from which it is derived.
        offers: methods one of which it has otherwise.
        ours: methods one of which makes it an option written for dstrun.
        given: how many arguments a function of it gets in front: what it is called with.
        filled: arguments that dstrun fills in where the yaml says nothing.
        needs: what the yaml must say besides, in words.
    """

    adapter: str
    what: str
    roots: tuple[str, ...]
    offers: tuple[str, ...]
    ours: tuple[str, ...]
    given: int = 0
    filled: tuple[str, ...] = ()
    needs: str = ""


CLASSES = ("num_classes", "classes")
CHANNELS = ("in_channels", "in_chans")
SIZE = ("image_size", "img_size")

UNNUMBERED = {"torch.utils.data.Dataset", "torch.utils.data.IterableDataset"}
"""Bases that have no images by number, or no length."""

SHARED = ("lr", "weight_decay")
"""Settings that both an adapter and a part read."""

KINDS = {
    "model": Kind(
        "dstrun.model.plain.Plain", "torch.nn.Module",
        ("torch.nn.",), (), ("build",), filled=(*CLASSES, *CHANNELS, *SIZE),
    ),
    "optimizer": Kind("dstrun.optimizer.plain.Plain", "torch.optim.Optimizer", ("torch.optim.",), (), ("build",), 1),
    "dataset": Kind(
        "dstrun.dataset.plain.Plain", "map-style data set, which has __len__ and __getitem__,",
        ("torch.utils.data.",), ("__getitem__",), ("load", "open"), filled=("train", "split"),
        needs="image: [CHANNELS, HEIGHT, WIDTH] and classes: NUMBER",
    ),
    "loss": Kind(
        "dstrun.loss.plain.Plain", "torch.nn.Module, has no __call__",
        ("torch.nn.",), ("__call__",), ("build",), 2,
    ),
}  # fmt: skip


def is_plain(group: str, target: str) -> bool:
    """Return whether what a yaml names was not written for dstrun, as far as its source shows."""
    kind = KINDS.get(group)
    if kind is None or target.startswith(identity.OWN) or (found := find(target)) is None:
        return False
    if isinstance(found.node, ast.FunctionDef):
        return True
    ours = any(cls.module.startswith(identity.OWN) or _is_option(cls) for cls in lineage(found)[0])
    return not ours and not members(found) & {*kind.ours}


def adapted(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node of the option that stands for a plain part; any other as it is.

    Settings of the option are its own; a default of the part's wins over the option's.
    """
    target = str(node["_target_"])
    if not is_plain(group, target):
        return dict(node)
    adapter = KINDS[group].adapter
    own, taken = own_settings(adapter), arguments(target).defaults
    default = {key: taken[key] for key in SHARED if key in own and taken.get(key, ...) not in (MISSING, ..., None)}
    mine = {key: node[key] for key in own if key in node}
    rest = {key: value for key, value in node.items() if key not in own}
    return {"_target_": adapter, "_recursive_": False, **default, **mine, "part": rest}


def own_settings(adapter: str) -> dict[str, Any]:
    """Return the settings of an adapter and their defaults."""
    return {key: value for key, value in identity.known_fields(adapter).items() if key != "part"}


def check(group: str, node: Mapping[str, Any], where: str) -> None:
    """Check a plain part by its source.

    Args:
        group: of the part.
        node: its settings.
        where: the yaml file.

    Raises:
        ConfigError: it is of another kind, or is not called so.
    """
    target = str(node["_target_"])
    kind, found = KINDS[group], find(target)
    assert found is not None
    _check_kind(group, target, found, where)
    taken, own = arguments(target), own_settings(kind.adapter)
    is_function = isinstance(found.node, ast.FunctionDef)
    given = kind.given if is_function or group == "optimizer" else 0
    front = [*taken.defaults][:given]
    if lacking := [key for key, value in own.items() if value is MISSING and key not in node]:
        raise ConfigError(f"{where} lacks {' and '.join(lacking)}: a plain {group} needs {kind.needs} ({PAGE})")
    known = {*taken.defaults, *own} - {*front}
    for key in node:
        shared = key in own and key not in SHARED
        if key != "_target_" and not shared and not (taken.takes(key) and key not in front):
            raise ConfigError(f"{group}.{key} is not a setting of this {group}{nearest(str(key), known)}")
    needs = [k for k, v in taken.defaults.items() if v is MISSING and k not in (*node, *front, *kind.filled, *own)]
    needs = [key for key in needs if key not in _split_keys(node)]
    if needs:
        raise ConfigError(f"{where}: {target} needs {', '.join(needs)}: add {needs[0]}: VALUE")
    if group == "dataset" and not ({"train", "test"} <= {*node} or any(map(taken.defaults.__contains__, kind.filled))):
        raise ConfigError(
            f"{where}: {target} takes neither train nor split: add train: {{KEY: VALUE}} and test: {{KEY: VALUE}}, by "
            "which its training and test images differ"
        )


def _check_kind(group: str, target: str, found: Written, where: str) -> None:
    """Check what a class is derived from, and how it is called."""
    kind = KINDS[group]
    if isinstance(found.node, ast.FunctionDef):
        return
    classes, outside = lineage(found)
    has = members(found)
    seen = all(base.startswith("torch.") for base in outside)
    if seen and not has & {*kind.offers} and not any(base.startswith(kind.roots) for base in outside):
        raise ConfigError(f"{where}: {target} is not a {kind.what} and has no {' or '.join(kind.ours)} ({PAGE})")
    if group == "dataset" and seen and not ({"__len__", "__getitem__"} <= has or {*outside} - UNNUMBERED):
        raise ConfigError(f"{where}: {target} is not a {kind.what.strip(',')} ({PAGE})")
    if group == "optimizer" and (needs := _required(classes, "step")):
        raise ConfigError(f"{where}: {target}.step needs {needs[0]}, and dstrun calls step(): choose another optimizer")
    if group == "loss" and len(needs := _required(classes, "forward")) > 2:
        raise ConfigError(f"{where}: {target} needs {', '.join(needs)}, but a loss is called with logits and labels")


def _required(classes: list[Written], method: str) -> list[str]:
    """Name the arguments, but ``self``, without which a method cannot be called."""
    for cls in classes:
        for node in cls.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == method:
                plain = [*node.args.posonlyargs, *node.args.args][1:]
                return [argument.arg for argument in plain[: len(plain) - len(node.args.defaults)]]
    return []


def _split_keys(node: Mapping[str, Any]) -> set[str]:
    """Name what a data set gets for one of its splits alone."""
    return {key for split in ("train", "test") if isinstance(node.get(split), Mapping) for key in node[split]}


def _is_option(cls: Written) -> bool:
    return isinstance(cls.node, ast.ClassDef) and "option" in map(ast.unparse, cls.node.decorator_list)


def call(part: Mapping[str, Any], *front: Any, **filled: Any) -> Any:
    """Call a plain part with its settings, options inside them built first.

    Args:
        part: ``_target_`` and settings.
        front: what stands before them.
        filled: what a setting of that name wins over.

    Raises:
        ConfigError: it cannot be called so.
    """
    target = str(part["_target_"])
    try:
        return resolved(part)(*front, **{**filled, **settings(part)})
    except ConfigError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{target} cannot be built: {type(error).__name__}: {said}") from error


def resolved(part: Mapping[str, Any]) -> Any:
    """Import what a part names."""
    from hydra.utils import get_object

    return get_object(str(part["_target_"]))


def settings(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a part, with the options inside them built."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    given = {key: value for key, value in part.items() if key != "_target_"}
    return instantiate(OmegaConf.create(given), _convert_="all")


def unknown_name(target: str, where: str) -> ConfigError:
    """Return the error of a name that a library lacks."""
    module, _, name = target.rpartition(".")
    return ConfigError(f"{where}: {module} has no {name}{nearest(name, names(module))}")


def is_unknown(target: str) -> bool:
    """Return whether a library that dstrun needs anyway lacks a name."""
    return trust.is_library(target) and find(target) is None
