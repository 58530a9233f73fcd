"""Records of runs configured as the command line would have them, with settings that are set apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from report_fixture import record_of

from dstrun.config import compose
from dstrun.report.load import Run

SPARSE = ["model=resnet56", "dataset=cifar10", "sparsity=0.98", "epochs=200", "batch_size=128"]
SGD = [
    "optimizer.lr=0.1", "optimizer.weight_decay=0.0001", "optimizer.lr_milestones=[0.4,0.6]", "optimizer.lr_drop=0.1",
    "optimizer.nesterov=false",
]  # fmt: skip
UPDATES = [
    "scope=global", "schedule=cosine", "schedule.fraction=0.2", "schedule.end=0.6", "schedule.interval_steps=1000",
]  # fmt: skip
HEDDES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "static": ([], {}),
    "set": (UPDATES, {"grow.regrow": False}),
    "rigl": ([*UPDATES, "method.batch=fresh"], {"grow.regrow": False}),
    "gse": ([*UPDATES, "method.batch=fresh", "grow.sampling=single", "optimizer.lr_warmup=0.025"], {}),
    "snip": ([], {"initialization": "fan_in"}),
    "lth": (["method.rewind=0", "method.sparsities=[0.5,0.75,0.9,0.95]"], {"initialization": "fan_in"}),
    "gmp": (
        [*UPDATES, "schedule.begin=0", "schedule.fraction=1", "~allocation"],
        {"initialization": "fan_in"},
    ),
}
"""Words, and settings apart, that train a method as Heddes et al. 2024 did."""


def configured(run: Run, key: str, value: Any) -> Run:
    """Set a dotted key of a run's configuration; of a group, its choice."""
    assert run.record is not None
    *groups, leaf = key.split(".")
    if not groups and leaf in run.record["choices"]:
        run.record["choices"][leaf] = value
        if leaf not in ("scope", "backend", "precision"):
            return run
    node = run.record["config"]
    for group in groups:
        node = node[group]
    node[leaf] = value
    return run


def record_as(
    label: str, words: list[str], apart: Mapping[str, Any] | None = None, seed: int = 0, top1: float = 85.0
) -> dict[str, Any]:
    """Make the record of a run with the words; the settings ``apart`` are set afterwards, by dotted key."""
    config, choices = deepcopy(_composed(label, tuple(words)))
    record = record_of(label, config["sparsity"], seed, top1)
    record["choices"] |= choices | {key: config[key] for key in ("scope", "backend", "precision")}
    record["config"] = config | {"seed": seed}
    record["id"] = f"{record['choices']['model']}-{record['choices']['dataset']}-{label}-s0.98-seed{seed}-3f9c2a"
    run = Run(Path("run"), "run", "done", record, {})
    for key, value in (apart or {}).items():
        configured(run, key, value)
    return record


@cache
def _composed(label: str, words: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    made = compose([f"method={label}", *SPARSE, *words])
    return made.config, made.choices


def heddes(label: str, *words: str, **apart: Any) -> Run:
    """Make a run of ResNet-56 on CIFAR-10 at 98 % as Heddes et al. 2024 trained, but for what is said."""
    said, own = HEDDES[label]
    own = {"allocation": "er_fan_out"} | own if label in ("static", "set", "rigl", "gse") else own
    record = record_as(label, [*SGD, *said, *words], own | apart)
    return Run(Path("run"), "run", "done", record, {})
