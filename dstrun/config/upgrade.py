"""Configurations of older versions in the terms of this one: options that moved, and defaults that were implicit.

The one place for that: whoever renames an option, or adds a setting whose default is not what there was before, adds a
line here, and old runs keep their meaning in every table and for ``dstrun migrate``.
"""

from __future__ import annotations

from typing import Any

from dstrun.config.identity import known_fields

MOVED = {
    "dstrun.method.dst.DST": "dstrun.method.dynamic.dst.DST",
    "dstrun.model.resnet50.ResNet50": "dstrun.model.resnet_imagenet.ResNet50",
}
"""Classes of options by the names they had."""

MEANT: dict[str, dict[str, Any]] = {
    "dstrun.allocation.er.ER": {"flatten": "fan_in"},
    "dstrun.grow.gradient.Gradient": {"regrow": True},
    "dstrun.grow.random.Random": {"regrow": True},
    "dstrun.method.after.fisher.Fisher": {"finetune_lr": 0.0},
    "dstrun.method.after.magnitude.MagnitudePruning": {"finetune_lr": 0.0},
    "dstrun.method.after.taylor.Taylor": {"finetune_lr": 0.0},
    "dstrun.method.at_init.snip.SNIP": {"statistics": "batch"},
    "dstrun.method.structured.thinet.ThiNet": {"finetune_lr": 0.0},
    "dstrun.optimizer.sgd.SGD": {"decay": "all"},
    "dstrun.optimizer.adamw.AdamW": {"decay": "all"},
    "dstrun.schedule.constant.Constant": {"start": "interval"},
    "dstrun.schedule.cosine.Cosine": {"start": "interval"},
    "dstrun.schedule.cubic.Cubic": {"start": "interval"},
    "dstrun.schedule.stepwise.Stepwise": {"start": "interval"},
}
"""What an option did before it had a setting; files of options name all of theirs, so that only old runs lack one."""

FOLLOWED: dict[str, dict[str, str]] = {
    "dstrun.method.soft.autosparse.AutoSparse": {"threshold_lr": "lr", "threshold_momentum": "momentum"},
    "dstrun.method.soft.str.STR": {"threshold_lr": "lr", "threshold_momentum": "momentum"},
    "dstrun.method.structured.sss.SSS": {"factor_lr": "lr"},
}
"""Settings that were the optimizer's before they had values of their own."""

RENAMED = {
    ("allocation", "er", "flatten", "fan_in"): "er_fan_in",
    ("dataset", "torchvision", "name", "MNIST"): "mnist",
    ("dataset", "torchvision", "name", "FashionMNIST"): "fashion_mnist",
    ("dataset", "torchvision", "name", "KMNIST"): "kmnist",
    ("dataset", "torchvision", "name", "SVHN"): "svhn",
}
"""Options by group, old name, and a setting with its value that they now stand for."""


def upgrade(config: dict[str, Any], choices: dict[str, Any]) -> bool:
    """Upgrade a configuration and its choices to this version, in place; return whether anything changed."""
    changed = False
    for node in _options(config):
        if (moved := MOVED.get(node["_target_"])) is not None:
            node["_target_"], changed = moved, True
        for key, value in MEANT.get(node["_target_"], {}).items():
            if key not in node and key in known_fields(node["_target_"]):
                node[key], changed = value, True
        optimizer = config.get("optimizer") or {}
        for key, source in FOLLOWED.get(node["_target_"], {}).items():
            if key not in node and source in optimizer:
                node[key], changed = optimizer[source], True
    for (group, name, key, value), new in RENAMED.items():
        node = config.get(group)
        if choices.get(group) == name and isinstance(node, dict) and node.get(key) == value:
            choices[group], changed = new, True
    return changed


def _options(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = [node] if isinstance(node.get("_target_"), str) else []
    for value in node.values():
        if isinstance(value, dict):
            found += _options(value)
    return found
