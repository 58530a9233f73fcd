"""A run is mirrored to Weights & Biases as it is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from small_run import SMALL


def test_offline_run_holds_what_the_files_hold(dstrun, tmp_path: Path) -> None:
    dstrun(*SMALL, "wandb=offline")
    (run,) = (tmp_path / "results" / "default").iterdir()
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    record = json.loads((run / "record.json").read_text())
    wandb = Path(sys.executable).with_name("wandb")
    said = subprocess.run([wandb, "leet", "inspect", "--json", str(log)], capture_output=True, text=True, check=True)
    text = said.stdout
    assert record["id"] in text
    for value in (record["accuracy"]["top1"], record["flops"]["train"], record["memory"]["peak_bytes"]):
        assert str(value)[:12] in text
    assert "density/fc1" in text
    assert not [p for p in tmp_path.iterdir() if p.name != "results"]
