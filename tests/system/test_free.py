"""Free memory below the limits of control groups, of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstrun.system import free

NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def group(folder: Path, version: int, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    most, now, key = NAMES[version]
    (folder / most).write_text(f"{limit}\n")
    (folder / now).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{key} {cached}\n")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for ``/sys/fs/cgroup`` and ``/proc/self/cgroup``, which a test writes as ``cgroup``."""
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda file: read(tmp_path / "cgroup" if file == Path("/proc/self/cgroup") else file)
    )
    monkeypatch.setattr(free, "GROUPS", tmp_path / "groups")
    return tmp_path / "groups"


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_counts_without_its_caches(version: int, mount: Path) -> None:
    top = mount / "memory" if version == 1 else mount
    (mount.parent / "cgroup").write_text("5:cpu:/x\n4:memory:/slurm/job\n" if version == 1 else "0::/slurm/job\n")
    group(top / "slurm" / "job", version, "9223372036854771712" if version == 1 else "max", 700, 200)
    group(top / "slurm", version, "1000", 700, 200)
    (mount / "cgroup.controllers").write_text("")
    assert free.free_bytes() == 500
    assert free.total_bytes() == 1000


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_sees_its_group_as_the_root(version: int, mount: Path) -> None:
    top = mount / "memory" if version == 1 else mount / "unified"
    (mount.parent / "cgroup").write_text("4:memory,cpu:/docker/4af\n" if version == 1 else "0::/../docker\n")
    group(top, version, "3000", 100, 0)
    assert free.free_bytes() == 2900


def test_without_control_groups_it_is_the_machine(mount: Path) -> None:
    assert free.free_bytes() > 1e6
    assert free.total_bytes() >= free.free_bytes()


def test_a_real_group_limits() -> None:
    """Run in a group of 2 GB, of which 300 MB are in use."""
    folders = [folder for folder, *_ in free._groups() if (folder / "cgroup.procs").exists()]
    memory = next((f for f in folders if (f / "memory.limit_in_bytes").exists() or (f / "memory.max").exists()), None)
    if memory is None:
        pytest.skip("no control groups for memory")
    made = memory / f"dstrun-test-{os.getpid()}"
    try:
        made.mkdir()
        limit = next((made / name for name, *_ in NAMES.values() if (made / name).exists()), None)
        if limit is None:
            pytest.skip("groups in this one cannot limit memory")
        limit.write_text("2000000000")
        code = (
            "import sys; from dstrun.system.free import *; x = b'x' * 300_000_000; print(free_bytes(), total_bytes())"
        )
        enter = f'echo $$ > {made / "cgroup.procs"} && exec "$0" -c "$1"'
        done = subprocess.run(["sh", "-c", enter, sys.executable, code], capture_output=True, text=True, check=True)
    except OSError:
        pytest.skip("control groups cannot be made here")
    finally:
        if made.exists():
            made.rmdir()
    left, total = map(int, done.stdout.split())
    assert total == pytest.approx(2e9, rel=1e-3)
    assert 1.5e9 < left < 1.7e9
