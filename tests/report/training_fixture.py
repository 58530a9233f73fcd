"""Records of runs configured as the command line would have them, with settings that are set apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from report_fixture import record_of

from dstrun.config.composition import compose
from dstrun.report.load import Run

SPARSE = ["model=resnet56", "dataset=cifar10", "sparsity=0.98", "epochs=200", "batch_size=128"]
HEDDES = ("static", "set", "rigl", "gse", "snip", "grasp", "synflow", "lth", "gmp")
"""What Heddes et al. 2024 trained, and ``protocol=heddes2024`` trains as they did."""


EVERY = dict.fromkeys(("set", "rigl", "gse", "gmp"), ("schedule.interval_steps=1000",))
"""The protocol's interval, said outright: how many steps a run had is not in a record alone."""


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
    record = record_as(label, ["protocol=heddes2024", *EVERY.get(label, ()), *words], apart)
    return Run(Path("run"), "run", "done", record, {})
