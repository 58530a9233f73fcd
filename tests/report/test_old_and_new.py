"""Records of earlier versions and new ones make one table."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dstrun.config.composition import compose
from dstrun.report import load, table

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
OLD = next(
    path
    for path in sorted(PUBLISHED.glob("*/*-gse-*/record.json"))
    if json.loads(path.read_text())["config"]["method"]["_target_"] == "dstrun.method.dst.DST"
)
"""Of a version that had the class elsewhere, and neither powerpropagation nor ``strict``."""


TODAY = {"er": "er_fan_in"}
"""Options that have another name now."""


def new(old: dict[str, Any], seed: int, **settings: Any) -> dict[str, Any]:
    """Make the record that this version would leave of the same experiment: everything said, in today's words."""
    groups = ("model", "allocation", "prune", "grow", "schedule", "optimizer")
    made = compose([f"{group}={TODAY.get(old['choices'][group], old['choices'][group])}" for group in groups])
    for key, value in old["config"].items():
        if not isinstance(value, dict):
            made.config[key] = value
    for group in (*groups, "dataset"):
        said = {k: v for k, v in old["config"][group].items() if not isinstance(v, dict) and k != "_target_"}
        made.config[group] |= said
    made.config.update(seed=seed, **settings)
    record = copy.deepcopy(old) | {"id": f"new-{seed}", "seed": seed, "config": made.config}
    record["choices"] = made.choices | {key: made.config[key] for key in ("scope", "backend", "precision")}
    record["data"]["checksum"] = "c" * 64
    record["network"] = {"shapes": "s" * 64}
    return record


@pytest.fixture
def old() -> dict[str, Any]:
    return json.loads(OLD.read_text())


def cells(root: Path, *records: dict[str, Any]) -> list[tuple[str, int]]:
    for i, record in enumerate(records):
        (root / str(i)).mkdir(parents=True)
        (root / str(i) / "record.json").write_text(json.dumps(record))
    return [(cell["method"], cell["n"]) for cell in table.build(load.runs(root)).cells]


def test_the_same_experiment_is_one_cell(tmp_path: Path, old: dict[str, Any]) -> None:
    assert "powerprop" not in old["config"]
    again = new(old, old["seed"] + 1)
    assert "powerprop" in again["config"]
    assert again["config"]["method"]["_target_"] != old["config"]["method"]["_target_"]
    assert cells(tmp_path, old, again) == [("gse", 2)]


def test_what_really_differs_does_not_hide(tmp_path: Path, old: dict[str, Any]) -> None:
    other = new(old, old["seed"] + 1, label_smoothing=0.1)
    assert cells(tmp_path, old, other) == [("gse (label_smoothing=0.0)", 1), ("gse (label_smoothing=0.1)", 1)]


def test_all_published_records_are_read(tmp_path: Path) -> None:
    shutil.copytree(PUBLISHED, tmp_path / "published", ignore=shutil.ignore_patterns("*.csv", "*.png"))
    runs = load.runs(tmp_path)
    assert len(runs) > 200
    assert all(run.done for run in runs)
    assert load.warnings(runs) == []
    built = table.build(runs)
    assert sum(cell["n"] for cell in built.cells) + _left_out(built) == len(runs)


def _left_out(built: table.Table) -> int:
    (note,) = [note for note in built.notes if note.startswith("left out")]
    return note.count("(done)") + int(note.rpartition(" and ")[2].split()[0])
