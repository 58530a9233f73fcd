"""No changed byte in any file of a run becomes another number without a word."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "benchmarks" / "flips.py"


def test_a_changed_byte_is_told_healed_or_read_by_nobody(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("flips", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.flips(tmp_path, 20, seed=3)
    files = {file for _, file in found}
    assert {"checkpoint.pt", "config.yaml", "metrics.csv", "record.json", "status.json", "topology.csv"} <= files
    assert {".owner", ".lock", ".sweeps/sweep.json", "checkpoint.previous.pt", "wandb/synced.json"} <= files
    assert not [key for key, counts in found.items() if counts["SILENT"]]
    assert found["finished", "record.json"]["told"] == sum(found["finished", "record.json"].values())
