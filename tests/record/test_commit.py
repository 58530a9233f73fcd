"""Which commit a record names."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dstrun.record import commit as module

ROOT = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSTRUN_COMMIT", raising=False)


def commit_of(file: Path) -> dict[str, object]:
    """Ask a copy of the module that lies somewhere else."""
    spec = importlib.util.spec_from_file_location("copied", file)
    copied = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(copied)  # type: ignore[union-attr]
    return copied.commit()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository")
def test_a_run_from_a_clone_names_its_commit(dstrun, tmp_path: Path) -> None:
    dstrun("model=mlp", "dataset=digits", "epochs=1", "wandb=disabled")
    (record,) = tmp_path.glob("results/default/*/record.json")
    code = json.loads(record.read_text())["code"]
    assert code["git_commit"] == git(ROOT, "rev-parse", "HEAD")
    assert code["dirty"] == bool(git(ROOT, "status", "--porcelain", "-uno"))


def test_a_change_makes_it_dirty(tmp_path: Path) -> None:
    file = tmp_path / "package" / "commit.py"
    file.parent.mkdir()
    shutil.copy(module.__file__, file)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-qm", "first")
    assert commit_of(file) == {"git_commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (file.parent / "commit.py").write_text(file.read_text() + "\n")
    assert commit_of(file)["dirty"] is True


def test_a_copy_in_the_repository_of_something_else_names_none(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-qm", "first")
    file = tmp_path / "venv" / "commit.py"
    file.parent.mkdir()
    shutil.copy(module.__file__, file)
    assert commit_of(file) == {"git_commit": None, "dirty": None}


def test_a_copy_without_a_repository_is_told_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "commit.py"
    shutil.copy(module.__file__, file)
    assert commit_of(file) == {"git_commit": None, "dirty": None}
    monkeypatch.setenv("DSTRUN_COMMIT", "f00d")
    assert commit_of(file) == {"git_commit": "f00d", "dirty": None}
