"""The worked example of CONTRIBUTING.md works as printed: one file, one yaml, found by name, its test passing."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import fork_server
import pytest
from small_run import SMALL

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def block(language: str, containing: str) -> str:
    (found,) = (b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in b)
    return found


@pytest.fixture
def example(tmp_path: Path) -> dict[str, str]:
    """The example outside the package, as a user would keep it: returns the environment that finds its module."""
    (tmp_path / "mine" / "grow").mkdir(parents=True)
    (tmp_path / "mine" / "grow" / "degree.py").write_text(block("python", "class Degree"))
    (tmp_path / "conf" / "grow").mkdir(parents=True)
    yaml = block("yaml", "degree.Degree").replace("dstrun.grow", "mine.grow")
    (tmp_path / "conf" / "grow" / "degree.yaml").write_text(yaml)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def test_example_runs_and_checks_itself(dstrun, tmp_path: Path, example: dict[str, str]) -> None:
    words = ["--config-dir", "conf", "grow=degree"]
    dstrun(*words, *SMALL, env=example)
    (record,) = tmp_path.glob("results/default/*/record.json")
    found = json.loads(record.read_text())
    assert found["choices"]["grow"] == found["label"] == "degree"
    assert found["updates"] > 0
    wrong = dstrun(*words, "grow.offset=-1", env=example, check=False)
    assert (wrong.returncode, wrong.stderr) == (2, "dstrun: grow.offset=-1 must be above 0\n")
    near = dstrun("--config-dir", "conf", "grow=degre", env=example, check=False)
    assert "choose degree, gradient, gse, random (did you mean degree?)" in near.stderr


def test_the_examples_own_test_passes(tmp_path: Path, example: dict[str, str]) -> None:
    test = block("python", "def test_draws").replace("dstrun.grow.degree", "mine.grow.degree")
    (tmp_path / "test_degree.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", str(tmp_path / "test_degree.py")]
    done = fork_server.run(command, env={**os.environ, **example}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
