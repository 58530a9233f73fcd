"""What papers call things: the names of options in figures, LaTeX and the HTML report; other formats keep the keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = {
    # Methods.
    "dense": "Dense", "static": "Static", "random": "Random", "snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow",
    "set": "SET", "set_itop": "SET-ITOP", "itop": "RigL-ITOP", "mest": "MEST", "dsr": "DSR", "deepr": "DeepR",
    "snfs": "SNFS", "rigl": "RigL", "gse": "GSE", "gse-grabo": "GSE-GraBo", "gse-graest": "GSE-GraEst",
    "topkast": "Top-KAST", "topk_ga": "TopK-GA", "str": "STR", "autosparse": "AutoSparse", "gmp": "GMP",
    "magnitude": "Magnitude", "taylor": "Taylor", "fisher": "Fisher", "lth": "LTH", "thin": "Thin", "thinet": "ThiNet",
    "sss": "SSS", "dst": "DST",
    # Networks.
    "mlp": "MLP", "mobilenet_v1": "MobileNetV1", "resnet18": "ResNet-18", "resnet20": "ResNet-20",
    "resnet32": "ResNet-32", "resnet34": "ResNet-34", "resnet44": "ResNet-44", "resnet50": "ResNet-50",
    "resnet56": "ResNet-56", "resnet110": "ResNet-110", "vgg16": "VGG-16", "vgg19": "VGG-19",
    "vgg16_small": "VGG-16 (small)", "vit": "ViT", "vit_s16": "ViT-S/16", "wideresnet": "WideResNet",
    # Data.
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet", "digits": "Digits",
    "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST", "svhn": "SVHN",
    # Allocations.
    "er_fan_in": "Erdős–Rényi (fan-in)", "er_fan_out": "Erdős–Rényi (fan-out)", "erk": "ERK", "uniform": "Uniform",
    "uniform_all": "Uniform (all layers)",
    "transient": "other",
    "flops": "FLOPs",
    # How numbers are kept and changed.
    "fp32": "FP32", "tf32": "TF32", "bf16": "BF16", "fp16": "FP16", "fp8": "FP8", "sgd": "SGD", "adam": "Adam",
    "adamw": "AdamW",
    # Ways to store a weight.
    "torch coo": "COO (torch)", "torch csr": "CSR (torch)",
}  # fmt: skip
"""By key; what is not here, as options of your own, keeps its key."""

SETTINGS = {
    "epochs": "{} epochs", "batch_size": "batch size {}", "precision": "{}", "allocation": "{}",
    "model.width": "width {}", "grow.gamma": "γ = {}", "optimizer.lr": "learning rate {}",
    "optimizer.lr_drop": "learning-rate drop {}",
    "optimizer.lr_milestones": "learning-rate milestones {}", "optimizer.lr_schedule": "{} learning rate",
    "schedule.interval_steps": "update every {} steps", "schedule.fraction": "drop fraction {}",
    "dataset.limit": "{} images", "dataset.validation": "{} validation images", "scope": "scope {}", "subset": "{}",
    "backend": "{} backend", "seed": "seed {}", "method": "{}", "optimizer": "{}", "data": "images {}",
}  # fmt: skip
"""How a setting and its value are said; of others the key's last part is said in words."""
COUNTS = ("epochs", "batch_size", "schedule.interval_steps", "dataset.limit", "dataset.validation")
"""Numbers that are written with a comma in thousands."""
NONE = {"dataset.limit": "all images", "epochs": "unknown epochs"}
"""How a setting is said that is null."""
WORDS = {"lr": "learning rate", "erk": "ERK", "flops": "FLOPs"}

_SETTING = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)=(\[[^\]]*\]|[^\s,;()]+)")
_WORD = re.compile(r"(?<![\w.-])[A-Za-z][\w-]*(?![\w-])")
_LIST = re.compile(r"\(([\w, -]+)\)")
_DOTTED = re.compile(r"(?<![\w./-])(?:[a-z][a-z0-9]*\.)*[a-z][a-z0-9]*(?:[._][a-z0-9]+)+(?![\w/])")


def spelled(text: str, own: Mapping[str, str] | None = None) -> str:
    """Write the name of a row, panel or tick as papers do: ``gse (epochs=4)`` as ``GSE (4 epochs)``.

    Args:
        text: keys, and settings with their values.
        own: further names by key or by whole text; they win over ``NAMES``.
    """
    own = own or {}
    if text in own:
        return own[text]
    known = {**NAMES, **own}
    if text in known:
        return known[text]
    text = _SETTING.sub(lambda found: own.get(found[0]) or _setting(found[1], found[2]), text)
    return _WORD.sub(lambda found: known.get(found[0], found[0]), text)


def worded(text: str, own: Mapping[str, str] | None = None) -> str:
    """Write a sentence without the keys of the configuration: settings in words, options by their names."""
    text = _SETTING.sub(lambda found: _setting(found[1], found[2]), text)
    known = {**NAMES, **(own or {})}
    text = _DOTTED.sub(lambda found: known.get(found[0]) or _last(found[0]), text)
    text = _LIST.sub(lambda found: f"({_named(found[1], known)})", text)
    return _WORD.sub(lambda found: known[found[0]] if _is_name(found[0], known) else found[0], text)


def _named(words: str, known: Mapping[str, str]) -> str:
    """Write a list of methods, as it stands in brackets, by their names; other words are left."""
    if words.split(",")[0].split(" and ")[0].strip() not in known:
        return words
    return _WORD.sub(lambda found: known.get(found[0], found[0]), words)


def _is_name(word: str, known: Mapping[str, str]) -> bool:
    """Return whether a word of a sentence can only be the name of an option."""
    return word in known and word not in PLAIN


PLAIN = {"dense", "static", "random", "set", "str", "thin", "magnitude", "uniform", "digits"}
"""Names that are words of sentences too."""


def _setting(key: str, value: str) -> str:
    if value in ("null", "None"):
        return NONE.get(key, f"no {_last(key)}")
    if key in SETTINGS:
        return SETTINGS[key].format(f"{int(value):,}" if value.isdecimal() and key in COUNTS else value)
    return f"{_last(key)} {value}"


def _last(key: str) -> str:
    """Return the last part of a dotted key in words."""
    return " ".join(WORDS.get(part, part) for part in key.rpartition(".")[2].split("_"))


def keys(texts: list[str], own: Mapping[str, str] | None = None) -> str:
    """Return the keys behind names where they differ in more than capitals: ``ResNet-56 (resnet56)``."""
    known = {**NAMES, **(own or {})}
    found = dict.fromkeys(word for text in texts for word in _WORD.findall(_SETTING.sub(r"\2", text)))
    return ", ".join(f"{known[key]} ({key})" for key in found if key in known and known[key].lower() != key)
