"""What is known of the training behind a published number, compared with the training of a run.

A source that does not say how it trained is not taken to have trained as we did: what it leaves open is named too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dstrun.report.load import Run, metric_columns
from dstrun.system.trouble import ConfigError

ASKED = (
    "epochs", "batch_size", "scope", "schedule", "schedule.fraction", "schedule.interval_steps", "schedule.begin",
    "schedule.end", "method.batch", "grow.regrow", "grow.sampling", "optimizer", "optimizer.lr", "optimizer.momentum",
    "optimizer.nesterov", "optimizer.weight_decay", "optimizer.decay", "optimizer.lr_schedule",
    "optimizer.lr_milestones", "optimizer.lr_drop", "optimizer.lr_warmup", "label_smoothing", "initialization",
    "allocation", "allocation.dense_first", "dataset.augment", "dataset.limit",
)  # fmt: skip
"""What should be known of a training, where it matters to the run (``_matters``), in the order it is said."""

ALSO = {
    "precision", "method.levels", "method.prune_share", "method.recipe_steps", "method.rounding", "method.rounds",
    "method.s_init", "method.samples_per_class", "method.sparsities", "method.splits", "method.threshold_decay",
}  # fmt: skip
"""Settings of a training that are compared where a source says them; so are all of ``schedule`` and ``optimizer``."""

DEFAULTS = {
    "allocation.dense_first": False, "dataset.limit": None, "grow.regrow": True, "initialization": "network",
    "optimizer.decay": "all", "optimizer.nesterov": False, "schedule.start": "interval",
}  # fmt: skip
"""How runs trained whose record is older than the setting: there was one way."""

ALIASES = {("allocation", "er"): "er_fan_in", ("schedule", "cosine_whole"): "cosine"}
"""Names for the same: of older records, and of one option with other defaults."""

ERDOS_RENYI = ("er", "er_fan_in", "er_fan_out")
"""Allocations by numbers of inputs and outputs, which count those of convolutions differently."""

LINEAR = ("mlp", "vit")
"""Models of linear layers alone, where these agree."""

GROUPS = ("allocation", "grow", "optimizer", "prune", "schedule", "scope", "subset")

MISSING: Any = object()
"""In the place of a value that nobody knows."""

CLOSE = 5e-4
"""How far two numbers may be apart, relative to the larger: a third is printed as 0.3333."""


@dataclass(frozen=True)
class Training:
    """How the training behind a published number compares with a run's.

    Attributes:
        differs: settings known to differ, ``scope=global (ours layer)``.
        unknown: settings that matter to the run and of which the source, or the run's record, says nothing.
    """

    differs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def sign(self) -> str:
        """Return what marks the number: ``≠`` for another training, ``?`` where not all is known, else nothing."""
        return "≠" if self.differs else "?" if self.unknown else ""

    @property
    def word(self) -> str:
        """Return the same for programs: ``same``, ``differs`` or ``not all known``."""
        return "differs" if self.differs else "not all known" if self.unknown else "same"

    @property
    def open(self) -> list[str]:
        """Name what is not known, a group of which all of it is by its name."""
        asked = {key.partition(".")[0] for key in self.unknown if "." not in key}
        return [key for key in self.unknown if "." not in key or key.partition(".")[0] not in asked & set(GROUPS)]

    @property
    def said(self) -> str:
        """Return what differs and what is not known, for a footnote; empty where all is known to agree."""
        differs = f"differs: {', '.join(self.differs)}" if self.differs else ""
        unknown = f"not known: {', '.join(self.open)}" if self.unknown else ""
        return "; ".join(filter(None, (differs, unknown)))


def is_training(key: str, allocation: str = "") -> bool:
    """Return whether a setting is one of training; any other makes another network or method.

    Leaving the first layer dense is what tells uniform allocations apart, and a detail of the others. What is flattened
    tells those by inputs and outputs apart, which their names say.
    """
    if key == "allocation.dense_first":
        return not allocation.startswith("uniform")
    return (
        key == "allocation.flatten" or key in ASKED or key in ALSO or key.partition(".")[0] in ("optimizer", "schedule")
    )


def family(allocation: str) -> str:
    """Return the name that allocations share which count inputs and outputs differently; else the allocation."""
    return "er" if allocation in ERDOS_RENYI else allocation


def compare(run: Run, said: Mapping[str, Any], method: str, metric: str) -> Training:
    """Compare what a source says of its training with a finished run of the same experiment.

    Args:
        run: ours.
        said: settings of its training as typed on the command line, by key; none of a value that is not known.
        method: the label of both.
        metric: what was published, a dotted key of a record; settings that cannot move it are left out.
    """
    differs, unknown = [], []
    further = sorted(key for key in said if key not in ASKED and is_training(key))
    for key in (*ASKED, *further):
        if not _moves(metric, key, run) or not _matters(run, key, method):
            continue
        theirs, ours = said.get(key, MISSING), defaulted(run, key)
        if theirs is MISSING:
            unknown += [key] if _asked(run, key) else []
        elif ours is MISSING:
            group = key.partition(".")[0]
            if not _apart(run, said, group):  # else it is a setting of their option, which ours is not
                unknown.append(f"{key}={theirs} (ours unknown)")
        elif not _agree(run, key, theirs, ours := ALIASES.get((key, str(ours)), ours)):
            differs.append(f"{key}={theirs} ({'' if differs else 'ours '}{_shown(ours)})")
    if _moves(metric, "precision", run) and "precision" not in said:
        # Unsaid, a training is as good as in fp32; one of ours that is not must not pass for it.
        ours = run.get("config.precision", "fp32")
        plain = ours in ("fp32", "tf32")  # which of them PyTorch takes unasked depends on the GPU
        unknown += [] if plain else [f"precision (ours {ours})"]
    return Training(tuple(differs), tuple(unknown))


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, typed or stored: ``1e-4`` and 0.0001, ``true`` and True."""
    one, other = _parsed(one), _parsed(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE)
    return type(one) is type(other) and one == other


def defaulted(run: Run, key: str) -> Any:
    """Return a run's value of a setting, or the choice of a group, None where it has none.

    One that its record is too old to have counts as it was then; ``MISSING`` where that is not known.
    """
    if key == "schedule.interval_steps":
        return _interval(run)
    where = f"choices.{key}" if key in GROUPS else f"config.{key}"
    found = _stored(run, where)
    if found is MISSING and key in GROUPS:
        found = _stored(run, f"config.{key}")
    return DEFAULTS.get(key, MISSING) if found is MISSING else found


def _stored(run: Run, key: str) -> Any:
    """Look a dotted key up in the record: unlike ``Run.get``, null is a value."""
    node: Any = run.record
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return MISSING
        node = node[part]
    return node


def _agree(run: Run, key: str, theirs: Any, ours: Any) -> bool:
    theirs = ALIASES.get((key, str(theirs)), theirs)
    if key == "allocation" and run.get("choices.model") in LINEAR and {theirs, ours} <= set(ERDOS_RENYI):
        return True
    if key == "method.sparsities":  # of levels on the way, only those below the target are gone through
        theirs, ours = ([level for level in _parsed(value) or () if level < run.sparsity] for value in (theirs, ours))
    return same(theirs, ours)


def _apart(run: Run, said: Mapping[str, Any], group: str) -> bool:
    """Return whether another option of a group was chosen, which is told of by itself."""
    return group in said and not same(said[group], defaulted(run, group))


def _moves(metric: str, key: str, run: Run) -> bool:
    """Return whether a setting can move what was published."""
    group = key.partition(".")[0]
    if metric.startswith("flops.inference"):
        return group in ("allocation", "scope")
    if metric.startswith("flops."):
        if key in ("schedule", "schedule.fraction"):
            return run.get("choices.grow") is None  # where it says how many connections there are, not which
        total = ("epochs", "dataset.limit") if metric == "flops.train" else ()
        return group in ("allocation", "grow", "method", "schedule", "scope") or key in total
    return True


def _matters(run: Run, key: str, method: str) -> bool:
    """Return whether a run's method and parts read a setting."""
    group, _, leaf = key.partition(".")
    chosen = run.get(f"choices.{group}")
    if group in GROUPS and group != "scope" and chosen is None:
        return False
    if key in ("optimizer.momentum", "optimizer.nesterov"):
        return chosen == "sgd"
    if key in ("optimizer.lr_milestones", "optimizer.lr_drop"):
        return run.get("config.optimizer.lr_schedule", "multistep") == "multistep"
    if key == "method.batch":
        return run.get("choices.grow") in ("gradient", "gse")
    if key == "scope":
        return method not in ("dense", "static", "thin")
    if key == "initialization":
        return not _starts_sparse(method)
    return not (leaf == "augment" and _stored(run, "config.dataset.augment") is MISSING)


def _asked(run: Run, key: str) -> bool:
    """Return whether a source should tell a setting that matters: not where the rest of the run leaves no choice."""
    if key == "scope":
        return run.get("choices.prune") is not None and run.get("choices.allocation") is not None
    if key == "schedule.begin":
        return run.get("choices.grow") is None
    if key == "grow.regrow":
        return run.get("choices.grow") in ("gradient", "random")
    if key == "grow.sampling":
        return run.get("choices.grow") == "gse"
    if key == "allocation.dense_first":
        return not str(run.get("choices.allocation")).startswith("uniform")
    return True


def _interval(run: Run) -> Any:
    """Return the steps from one update of the topology to the next, as the run had them; None where it had none."""
    from dstrun.schedule.times import Times

    kept = _stored(run, "config.schedule")
    if not isinstance(kept, dict):
        return MISSING
    if kept.get("interval_steps") is not None:
        return kept["interval_steps"]
    steps = _steps(run.folder)
    needed = {"updates"} if kept.get("updates") is not None else {"recipe_interval_steps", "recipe_steps"}
    if steps is None or not {"begin", "end", *needed} <= kept.keys():
        return MISSING
    try:
        times = Times(**{f.name: kept[f.name] for f in fields(Times) if f.name in kept})
        found = times.steps(steps)
    except ConfigError:  # no run of ours had it
        return MISSING
    if times.updates:
        return round((times.last(steps) - times.first(steps)) / (times.updates + 1))
    return found[1] - found[0] if len(found) > 1 else found[0] - times.first(steps) if found else None


@lru_cache(maxsize=1024)
def _steps(folder: Path) -> int | None:
    """Count the steps of a finished run in its ``metrics.csv``."""
    run = Run(folder, folder.name, "done", None, {})
    steps = metric_columns(run, ("epoch", "step")).get("step")
    return steps[-1] if steps and isinstance(steps[-1], int) else None


@cache
def _starts_sparse(label: str) -> bool:
    """Return whether a method has no dense start, by where its class is kept."""
    target = preset(label).get("method", {}).get("_target_")  # none where it is composed of parts (method=dst)
    return target is None or ".dynamic." in target or ".static." in target


@cache
def preset(label: str) -> dict[str, Any]:
    """Read the preset of a method's label; empty where it has none, as a composed method."""
    return option("method", label.partition("-")[0])


@cache
def option(group: str, name: str) -> dict[str, Any]:
    """Read an option of a group; empty where there is no such."""
    import yaml

    file = files("dstrun.conf") / group / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _parsed(value: Any) -> Any:
    """Return a value as what it is: words of the command line are read, numbers are floats."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word.startswith("[") and word.endswith("]"):
            return [_parsed(part) for part in word[1:-1].split(",") if part]
        if word in ("true", "false", "null", "none", ""):
            return {"true": True, "false": False}.get(word)
        try:
            return float(word)
        except ValueError:
            return word
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return [_parsed(part) for part in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    """Write a value as it is typed."""
    if isinstance(value, list | tuple):
        return f"[{','.join(_shown(part) for part in value)}]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
