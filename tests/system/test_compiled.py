"""Compiled functions are right and run, whatever became of the folder they are kept in."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest
from numba.core import caching, config

from dstrun.system.compiled import compiled


def double(x: float) -> float:
    return 2 * x


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that compiled functions are kept in; ``double`` is."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert compiled()(double)(2.0) == 4
    return tmp_path


def hits() -> int:
    """Compile ``double`` as a new process would, and return whether it was found (1) or not (0)."""
    function = compiled()(double)
    assert function(3.0) == 6
    return sum(function.stats.cache_hits.values())


def test_kept(kept: Path) -> None:
    assert hits() == 1


def test_memory_that_runs_out_is_no_damage(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted there, numba could no more tell the type of ``range``."""

    def load(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(caching.FunctionCache, "load_overload", load)
    with pytest.raises(MemoryError):
        hits()


@pytest.mark.parametrize("name", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "begin", "middle", "end", "gone"])
def test_damaged(kept: Path, name: str, damage: str) -> None:
    """What is damaged is compiled anew, and kept for the process after that."""
    (file,) = kept.rglob(name)
    content = bytearray(file.read_bytes())
    if damage in ("empty", "cut"):
        file.write_bytes(content[: 0 if damage == "empty" else len(content) // 2])
    elif damage == "gone":
        file.unlink()
    else:
        content[{"begin": 1, "middle": len(content) // 2, "end": -2}[damage]] ^= 0x10
        file.write_bytes(content)
    hits()
    hits()  # one that was damaged in its index has been emptied by the first
    assert hits() == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, "")

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", full)
    assert hits() == 0
    assert not list(tmp_path.rglob("*.nbi"))


def test_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "ZipCacheLocator", raising=False)
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [caching.ZipCacheLocator])
    function = compiled()(double)
    assert function(3.0) == 6
    assert function.stats.cache_path is None


def test_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a folder ``~`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compiled()(double)(3.0) == 6
    assert not list(tmp_path.iterdir())


def test_pool_has_the_threads_of_the_run(tmp_path: Path) -> None:
    """Threads beyond them would be woken for every call, and spin."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from dstrun.backend.sparse.kernel.call import threads\n"
        "from numba.np.ufunc import parallel\n"
        "assert threads() == 1\n"
        "print(parallel.NUM_THREADS)"
    )
    (tmp_path / "pool.py").write_text(code)
    said = fork_server.run([sys.executable, str(tmp_path / "pool.py")], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "1"
