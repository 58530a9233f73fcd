"""What was probably meant by an unknown name: every hint of the program. Standard library only.

``nearest`` finds a spelling; the tables hold what no spelling shows, as other programs' names for the same thing.
A wrong hint is worse than none: where nothing is near, the sentence ends without one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

SETTINGS: Mapping[str, str] = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "l2": "optimizer.weight_decay",
    "milestones": "optimizer.lr_milestones",
    "warmup": "optimizer.lr_warmup",
    "scheduler": "optimizer.lr_schedule",
    "lr_scheduler": "optimizer.lr_schedule",
    "opt": "optimizer",
    "optim": "optimizer",
    "bs": "batch_size",
    "batch": "batch_size",
    "gpu": "device=cuda",
    "gpus": "device=cuda",
    "cuda": "device=cuda",
    "cpu": "device=cpu",
    "mps": "device=mps",
    "arch": "model",
    "net": "model",
    "network": "model",
    "data": "dataset",
    "data_dir": "dataset.root",
    "data_root": "dataset.root",
    "pruning_rate": "sparsity",
    "prune_rate": "schedule.fraction",
    "drop_fraction": "schedule.fraction",
    "update_interval": "schedule.interval_steps",
    "delta_t": "schedule.interval_steps",
    "erk": "allocation=erk",
    "distribution": "allocation",
    "sparsity_distribution": "allocation",
    "amp": "precision=fp16",
    "fp16": "precision=fp16",
    "bf16": "precision=bf16",
    "dtype": "precision",
    "workers": "hydra.launcher.workers",
    "jobs": "hydra.launcher.workers",
    "random_seed": "seed",
    "name": "experiment",
    "exp": "experiment",
    "exp_name": "experiment",
    "out": "results",
    "out_dir": "results",
    "output": "results",
    "output_dir": "results",
    "save_dir": "results",
    "logger": "tracker",
    "pretrained": "init",
    "criterion": "loss",
    "patience": "early_stop",
    "gradient_checkpointing": "checkpointing",
}
"""Settings by what they are called elsewhere; with a value, where the word itself is one."""

OF_OPTIONS: Mapping[str, str] = {
    "lr": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "nesterov": "optimizer.nesterov",
    "gamma": "grow.gamma",
    "width": "model.width",
    "depth": "model.depth",
}
"""Settings of options by their last part, where nothing is composed that would show whose it is."""

VALUES: Mapping[tuple[str, str], str] = {
    ("device", "gpu"): "cuda",
    ("precision", "half"): "fp16",
    ("precision", "float16"): "fp16",
    ("precision", "amp"): "fp16",
    ("precision", "float32"): "fp32",
    ("precision", "bfloat16"): "bf16",
    ("backend", "dense"): "masked",
    ("optimizer", "momentum"): "sgd",
    ("optimizer", "sgdm"): "sgd",
    ("allocation", "erdos_renyi"): "erk",
    ("model", "wrn"): "wideresnet",
    ("model", "wrn28_2"): "wideresnet",
    ("model", "transformer"): "vit",
    ("dataset", "torchvision"): "mnist",
    ("dataset", "fashionmnist"): "fashion_mnist",
    ("dataset", "tiny_imagenet"): "image_folder",
    ("wandb", "off"): "disabled",
    ("wandb", "none"): "disabled",
    ("wandb", "on"): "online",
}
"""Values of settings by what they are called elsewhere."""

RUNS = "training needs no command: dstrun model=resnet56"
VERBS: Mapping[str, str] = {
    "train": RUNS,
    "run": RUNS,
    "fit": RUNS,
    "start": RUNS,
    "resume": "the same command resumes a run",
    "continue": "the same command resumes a run",
    "restart": "the same command resumes a run",
    "sweep": "-m sweeps, as dstrun -m seed=0,1,2",
    "multirun": "-m sweeps, as dstrun -m seed=0,1,2",
    "tune": "-m sweeps, as dstrun -m optimizer.lr=0.01,0.1",
    "list": "dstrun methods lists methods, dstrun status runs",
    "ls": "dstrun methods lists methods, dstrun status runs",
    "show": "dstrun status shows runs, dstrun --cfg job a configuration",
    "config": "dstrun --cfg job shows the configuration",
    "watch": "dstrun status --watch follows a sweep",
    "log": "dstrun status --watch follows a sweep",
    "logs": "dstrun status --watch follows a sweep",
    "test": "dstrun eval evaluates a finished run",
    "evaluate": "dstrun eval evaluates a finished run",
    "validate": "dstrun eval evaluates a finished run",
    "figure": "dstrun plot draws figures",
    "draw": "dstrun plot draws figures",
    "compare": "dstrun table compares runs",
    "tables": "dstrun table compares runs",
    "results": "dstrun table compares runs, dstrun status lists them",
    "flops": "dstrun plan counts FLOPs, dstrun table --preset flops those of runs",
    "summary": "dstrun plan shows layers and costs",
    "profile": "dstrun plan shows what a run would cost",
    "upload": "dstrun sync sends runs to W&B",
    "wandb": "dstrun sync sends runs to W&B",
    "save": "dstrun weights writes the network of a run",
    "check": "dstrun doctor checks this machine",
    "models": "dstrun help model lists networks",
    "datasets": "dstrun help dataset lists data sets",
    "settings": "dstrun help settings lists them",
}
"""What to do instead of a command that does not exist."""

FIELDS: Mapping[str, str] = {
    "accuracy": "accuracy.top1",
    "acc": "accuracy.top1",
    "lr": "optimizer.lr",
    "flops": "flops.train",
    "time": "seconds",
}
"""Fields of runs by what they are called elsewhere."""


ELSEWHERE = (
    "resnet8", "resnet14", "resnet26", "resnet101", "resnet152", "vgg11", "vgg13", "mobilenet_v2", "mobilenet_v3",
    "fp64",
)  # fmt: skip
"""Names that exist elsewhere: whoever writes one means it."""

NEAR = 0.7
"""How much of two words must be the same for one to be a spelling of the other (``difflib``)."""

MANY = 3
"""So many names at most are a hint; more are a list."""


def said(*names: str) -> str:
    """Return a hint, ``" (did you mean X or Y?)"``."""
    return f" (did you mean {' or '.join(names)}?)"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the nearest valid spelling, ``" (did you mean X?)"``, or nothing where none is near.

    Of a word that only begins names, ``er``, all of these: ``" (did you mean er_fan_in or er_fan_out?)"``.
    """
    names = {str(name).lower().lstrip("-"): str(name) for name in known}
    lower = word.lower().lstrip("-")
    if lower in names:
        return said(names[lower])
    begun = [name for name in names if lower and re.match(rf"{re.escape(lower)}[_\d]", name)]
    if begun or lower in ELSEWHERE:
        return said(*(names[name] for name in begun)) if 0 < len(begun) <= MANY else ""
    short = len(lower) <= 3
    likely = [name for name in names if (name[:1] == lower[:1] or not short) and _may_be(lower, name)]
    close = difflib.get_close_matches(lower, likely, n=1, cutoff=0.66 if short else NEAR)
    close = close or [name for name in likely if len(lower) > 2 and sorted(name) == sorted(lower)]
    return said(names[close[0]]) if close else ""


def _may_be(word: str, name: str) -> bool:
    """Return whether a word may be a spelling of a name: with other digits it is another name, but for one slip."""
    letters = re.sub(r"\d+", "", word)
    if not letters or letters != re.sub(r"\d+", "", name):
        return True
    one, two = re.sub(r"\D", "", word), re.sub(r"\D", "", name)
    return len(one) == len(two) and (
        sorted(one) == sorted(two) or sum(a != b for a, b in zip(one, two, strict=True)) == 1
    )


def setting(key: str, value: str, known: Collection[str]) -> str:
    """Return which setting is meant by one that there is not.

    Args:
        key: as typed, ``lr``.
        value: as typed.
        known: every setting, with dots.
    """
    plain = key.lower().replace("-", "_")
    if plain == "density" and (share := _number(value)) is not None and 0 < share <= 1:
        return said(f"sparsity={round(1 - share, 10):g}")
    if instead := SETTINGS.get(plain):
        return said(instead)
    where, _, leaf = key.rpartition(".")
    own = [name for name in known if not name.startswith(("recipe.", "hydra."))]
    inside = [name for name in own if name.rpartition(".")[2] == leaf] if not where else []
    if inside:
        return said(*inside[:MANY])
    if instead := OF_OPTIONS.get(plain):
        return said(instead)
    same = [name for name in known if name.rpartition(".")[0] == where]
    return nearest(key, same) or nearest(key, known) or nearest(leaf, known)


def value(key: str, text: str, known: Collection[str]) -> str:
    """Return which of the values that a setting takes is meant."""
    plain = text.lower().replace("-", "_")
    if plain not in {name.lower() for name in known} and (instead := VALUES.get((key, plain))):
        return said(f"{key}={instead}" if " " in instead else instead)
    return nearest(text, known)


def share(text: str, low: float, high: float) -> str:
    """Return the share that a percentage is, ``98`` or ``98%``, of a setting with bounds from 0 to 1."""
    number = _number(text.removesuffix("%").strip())
    if number is None or not (low >= 0 and high <= 1) or not (5 <= number < 100 or text.endswith("%")):
        return ""
    return said(f"{number / 100:g}") if low <= number / 100 <= high else ""


def verb(word: str, known: Collection[str], groups: Mapping[str, Collection[str]]) -> str:
    """Return what to write instead of a word that is neither a command nor ``key=value``.

    Args:
        word: as typed.
        known: every command.
        groups: the options of each group, by its name.
    """
    if instead := VERBS.get(word.lower()):
        return f": {instead}"
    if word in groups:
        return f": write {word}=NAME, of {', '.join([*groups[word]][:4])}, ..."
    if chosen := [f"{group}={word}" for group, options in groups.items() if word in options]:
        return said(*chosen)
    return nearest(word, [*known, "help"]) or f": the commands are {', '.join(known)}"


def field(name: str, known: Collection[str]) -> str:
    """Return which field of runs is meant by one that there is not."""
    instead = FIELDS.get(name, "")
    return said(instead) if instead in known else nearest(name, known)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
