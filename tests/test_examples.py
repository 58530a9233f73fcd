"""The examples run, and train: those whose package is not installed are skipped."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import fork_server
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "needs", "sparsity", "steps"),
    [
        ("loop", ["sklearn"], 0.95, 420),
        ("lightning_loop", ["lightning"], 0.9, 210),
        ("trainer_loop", ["transformers", "accelerate"], 0.9, 220),
    ],
)
def test_a_loop_trains(name: str, needs: list[str], sparsity: float, steps: int, tmp_path: Path) -> None:
    for package in needs:
        pytest.importorskip(package)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, EXAMPLES / f"{name}.py"]
    done = fork_server.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(r"sparsity ([\d.]+), accuracy ([\d.]+) on test after (\d+) steps", done.stdout.splitlines()[-1])
    assert said
    assert float(said[1]) == sparsity
    assert float(said[2]) > 0.85
    assert int(said[3]) == steps
