"""What Weights & Biases shows of a run: the same while it trains and when it is rebuilt from its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dstrun.record.folder import label


@dataclass(frozen=True)
class Page:
    """What is known of a run before it trains; ``group`` is shared by the seeds of one configuration."""

    id: str
    group: str
    tags: list[str]
    config: dict[str, Any]


def page(run_id: str, config: dict[str, Any], choices: dict[str, str | None]) -> Page:
    """Describe a run.

    Args:
        run_id: the name of its folder.
        config: the resolved configuration.
        choices: the option of each group by name.
    """
    group = run_id.replace(f"-seed{config['seed']}", "").rpartition("-")[0]
    tags = [label(choices), *(choices[key] for key in ("model", "dataset", "allocation")), config["backend"]]
    return Page(run_id, group, [tag for tag in tags if tag], config)


def history(row: dict[str, Any], densities: dict[str, float]) -> dict[str, Any]:
    """Return the numbers of an epoch, to be shown at its step.

    Args:
        row: of ``metrics.csv``.
        densities: the active share of each layer.
    """
    shown = {key: value for key, value in row.items() if key not in ("step", "split")}
    return shown | {f"density/{name}": value for name, value in densities.items()}


def summary(state: str, record: dict[str, Any] | None) -> dict[str, Any]:
    """Return the final numbers of a run, by group and name, and how it ended."""
    groups = ("accuracy", "parameters", "flops", "memory", "seconds")
    numbers = {f"{group}/{key}": value for group in groups for key, value in (record or {}).get(group, {}).items()}
    return {"state": state} | numbers
