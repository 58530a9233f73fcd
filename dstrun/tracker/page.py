"""What trackers show of a run: the same keys in all of them, while it trains and when it is rebuilt from its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dstrun.record.folder import experiment, label

KEYS = {
    "epoch": "epoch",
    "train_loss": "train/loss",
    "lr": "lr",
    "seconds": "time/epoch",
    "flops": "flops",
    "peak_bytes": "memory/peak",
    "resident_peak_bytes": "memory/resident",
}
"""Keys of an epoch's numbers by their column of ``metrics.csv``; those of the held-out split begin with its name."""

SPLITS = {"test": "test", "validation": "val"}

FINAL = {"parameters": "parameters", "flops": "cost", "memory": "memory", "seconds": "time"}
"""How keys of the final numbers begin, by the group of the record."""

DOUBLE = ("flops/train", "memory/peak_bytes")
"""Fields of the record that are the last epoch's ``flops`` and ``memory/peak``, as ``accuracy`` is ``test/top1``."""

LAYERS = ("name", "shape", "connections", "initial", "active", "explored")
"""Fields of a layer in the record."""


@dataclass(frozen=True)
class Page:
    """What is known of a run before it trains; ``group`` is shared by the seeds of one configuration."""

    id: str
    group: str
    tags: list[str]
    config: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of the same columns, shown as a table."""

    columns: list[str]
    rows: list[Any]


def page(
    run_id: str, config: dict[str, Any], choices: dict[str, str | None], own: dict[str, str] | None = None
) -> Page:
    """Describe a run.

    Args:
        run_id: the name of its folder.
        config: the resolved configuration.
        choices: the option of each group by name.
        own: the checksum of each module of a user's own, where they are on record.

    Raises:
        ConfigError: the file of a user's own option is gone.
    """
    group = run_id.replace(f"-seed{config['seed']}", "").rpartition("-")[0]
    said: dict[str, Any] = {}
    if not is_old(config):
        said = config["wandb"]
        group = said["group"] or f"{group}-{experiment(config | {'seed': 0}, own)[:8]}"
    tags = [label(choices), *(choices[key] for key in ("model", "dataset", "allocation")), config["backend"]]
    return Page(run_id, group, [tag for tag in (*tags, *said.get("tags", ())) if tag], config)


def is_old(config: Mapping[str, Any]) -> bool:
    """Return whether a run was made before there was a choice of trackers: W&B has it under other keys."""
    return "tracker" not in config


def history(row: dict[str, Any], densities: dict[str, float], *, old: bool = False) -> dict[str, Any]:
    """Return the numbers of an epoch, to be shown at its step.

    Args:
        row: of ``metrics.csv``.
        densities: the active share of each layer.
        old: whether the run is (``is_old``).
    """
    shares = {f"density/{name}": value for name, value in densities.items()}
    if old:
        return {key: value for key, value in row.items() if key not in ("step", "split")} | shares
    split = SPLITS.get(row["split"], row["split"])
    keys = KEYS | {key: f"{split}/{key}" for key in ("loss", "top1", "top5")}
    return {keys[key]: row[key] for key in keys if row.get(key) is not None} | shares


def summary(state: str, record: dict[str, Any] | None, *, old: bool = False) -> dict[str, Any]:
    """Return the final numbers of a run and how it ended, and its layers as a ``Table``; no number of the last epoch.

    Args:
        state: of the run.
        record: of the run, if it is done.
        old: whether the run is (``is_old``).
    """
    found, record = {"state": state}, record or {}
    if old:
        groups = ("accuracy", *FINAL)
        return found | {f"{group}/{key}": value for group in groups for key, value in record.get(group, {}).items()}
    for group, start in FINAL.items():
        for key, value in leaves(record.get(group, {})):
            if value is not None and f"{group}/{key}" not in DOUBLE:
                found[f"{start}/{key.removesuffix('_bytes')}"] = value
    layers = record.get("layers") or []
    rows = [[*(layer.get(key) for key in LAYERS), layer["active"] / layer["connections"]] for layer in layers]
    return found | ({"layers": Table([*LAYERS, "density"], rows)} if rows else {})


def leaves(node: Mapping[str, Any], separator: str = "/") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested dictionaries by its path."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}{separator}{path}", leaf) for path, leaf in leaves(value, separator))
        else:
            yield str(key), value
