"""What runs share and in what they differ: settings, environment, and the question that a sweep asks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstrun.report.compare import scalars
from dstrun.report.load import EMERGES, Run, natural
from dstrun.report.names import spelled
from dstrun.report.style import order

ENVIRONMENT = {
    "env.torch": "PyTorch", "env.python": "Python", "env.device": "device", "env.host": "host",
    "env.threads": "threads", "env.processes": "processes", "env.together": "runs in its process",
    "code.version": "dstrun", "code.git_commit": "commit",
    "data.source": "data (SHA-256)", "memory.how": "memory measured as", "flops.convention": "FLOPs counted as",
}  # fmt: skip
HASHES = ("code.git_commit", "data.source")
HASH_DIGITS = 12
FIRST = ("method", "model", "dataset", "sparsity", "seed")
MANY = 8
"""Names that a sentence, or the values of a setting, may list."""


@dataclass(frozen=True)
class Setting:
    """A setting with each value that runs have for it, and how many; ``absent`` runs have none."""

    key: str
    values: list[tuple[str, int]]
    absent: int = 0

    @property
    def shared(self) -> bool:
        """Return whether all runs have the one value."""
        return len(self.values) == 1 and not self.absent

    @property
    def shown(self) -> list[tuple[str, int]]:
        """Return the values there is room for."""
        return self.values if len(self.values) <= MANY else self.values[: MANY - 2]


def settings(run: Run) -> dict[str, str]:
    """Flatten what decides a run's result to dotted keys, choices by the name of their group.

    Empty where nothing but the run's name is known: of a planned run, or one of a damaged ``config.yaml``.
    """
    if run.get("config.epochs") is None:
        return {}
    flat = dict.fromkeys(FIRST) | {key.removeprefix("choices."): value for key, value in scalars(run).items()}
    flat |= {"method": run.get("choices.method")} | {key: run.get(f"config.{key}") for key in ("sparsity", "seed")}
    return {key: _text(value) for key, value in flat.items() if not key.endswith("_target_") and value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def spread(rows: Sequence[Mapping[str, str]]) -> list[Setting]:
    """Collect the values of every key, choices and top-level settings first; values in natural order.

    An empty row is of a run of which nothing is known, and counts nowhere.
    """
    rows = [row for row in rows if row]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for key, value in row.items():
            found[key][value] += 1
    spread = [
        Setting(key, sorted(values.items(), key=lambda pair: natural(pair[0])), len(rows) - values.total())
        for key, values in found.items()
    ]
    return sorted(spread, key=lambda setting: (setting.key not in FIRST, "." in setting.key))


def brought(differing: Sequence[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Separate the settings that differ from those among them that a choice brings along that differs itself."""
    keys = {setting.key for setting in differing}
    parted: tuple[list[Setting], list[Setting]] = [], []
    for setting in differing:
        parted[_brought(setting.key, keys)].append(setting)
    return parted


def _brought(key: str, keys: Container[str]) -> bool:
    group, dot, _ = key.partition(".")
    return bool(dot) and group in keys


def environment(runs: Iterable[Run]) -> list[Setting]:
    """Collect where the runs of records were trained, by what, and how their costs were measured."""
    rows = [{title: _said(run, key) for key, title in ENVIRONMENT.items() if run.get(key) is not None} for run in runs]
    return sorted(spread(rows), key=lambda setting: list(ENVIRONMENT.values()).index(setting.key))


def _said(run: Run, key: str) -> str:
    text = _text(run.get(key))
    changed = key == "code.git_commit" and run.get("code.dirty")
    return (text[:HASH_DIGITS] if key in HASHES else text) + (" with changes not committed" if changed else "")


def apart(runs: Sequence[Run], flat: Sequence[Mapping[str, str]]) -> list[str]:
    """Return for each run what sets it apart from others of its method, model and data, but for sparsity and seed.

    What a choice brings along is left out where the choice itself is said.
    """
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        groups[run.get("choices.model"), run.get("choices.dataset"), run.get("label")].append(i)
    said = [""] * len(runs)
    for members in groups.values():
        keys = [
            setting.key
            for setting in spread([flat[i] for i in members])
            if len(setting.values) > 1 and setting.key not in ("sparsity", "seed")
        ]
        keys = [key for key in keys if not _brought(key, keys)]
        for i in members:
            said[i] = ", ".join(f"{key}={flat[i][key]}" for key in keys if key in flat[i])
    return said


def question(runs: Sequence[Run]) -> str:
    """Return the question that the runs answer, from what varies among them, with names as in papers."""
    labels = sorted({run.get("label") for run in runs if run.get("label")}, key=order)
    sparse = [spelled(label) for label in labels if label != "dense"]
    dense = "dense training"
    if not labels:
        return "What are the results of these runs?"
    if not sparse:
        asked = f"How well does {dense} do"
    elif len(sparse) == 1:
        asked = f"How does {sparse[0]} " + (f"compare with {dense}" if "dense" in labels else "do")
    else:
        asked = f"How do {_listed(sparse, 'methods')} compare"
        asked += f" with each other and with {dense}" if "dense" in labels else ""
    places = sorted(
        {(str(run.get("choices.model")), str(run.get("choices.dataset"))) for run in runs if run.get("label")}
    )
    said = [f"{spelled(model)} on {spelled(dataset)}" for model, dataset in places]
    return f"{asked} for {_listed(said, 'models and data sets')}{_levels(runs)}?"


def _levels(runs: Iterable[Run]) -> str:
    levels = sorted({run.sparsity for run in runs if run.get("config")} - {0.0})
    asked = [f"{100 * level:g}\N{NO-BREAK SPACE}%" for level in levels if level != EMERGES]
    said = [f"{asked[0]} sparsity"] if len(asked) == 1 else [f"sparsities {_listed(asked, 'levels')}"] if asked else []
    said += ["the sparsity that training finds"] if EMERGES in levels else []
    return f", at {' and at '.join(said)}" if said else ""


def _listed(words: Sequence[str], what: str) -> str:
    if len(words) > 2 * MANY:
        return f"{len(words)} {what}"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
