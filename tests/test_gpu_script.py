"""The script for a GPU machine goes through on a CPU, and leaves files that the next slot takes up."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script with an empty kit; everything it writes is below the folder of a test."""
    kit, temporary = out.with_name("kit"), out.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "DSTRUN_GPU_KIT": str(kit), "TMPDIR": str(temporary), "DSTRUN_COMMIT": "f00d"}
    environment |= {"DSTRUN_CACHE": str(kit / "images"), "NUMBA_CACHE_DIR": str(kit / "numba")}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(out), *words]
    return subprocess.run(command, env=environment, cwd=temporary, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("phase", ["where", pytest.param("packed", marks=pytest.mark.slow)])
def test_a_slot_on_a_cpu(tmp_path: Path, phase: str) -> None:
    out = tmp_path / "out"
    done = script(out, "--device", "cpu", "--seconds", "40", "--only", phase)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["bench.csv", "checks.json", "log.txt", "records.tar.gz"]
    found = json.loads((out / "checks.json").read_text())
    assert found["commit"] == "f00d"
    assert found["phases"].keys() == {"where", phase}
    assert found["checks"]["machine"]["state"] == "passed"
    rows = {row["name"]: row for row in csv.DictReader((out / "bench.csv").read_text().splitlines())}
    assert float(rows["copy"]["value"]) > 0
    assert ("packed/1" in rows) == ("streams/mlp/2" in rows) == (phase == "packed")
    assert done.stdout.splitlines()[-1].endswith(", 0 skipped")
    assert not [path for path in (tmp_path / "temporary").iterdir() if path.name.startswith("dstrun-gpu")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_a_failure_that_is_packed(tmp_path: Path) -> None:
    done = script(tmp_path / "out", "--seconds", "60")
    assert done.returncode == 1
    assert "no device=cuda was found" in (tmp_path / "out" / "log.txt").read_text()
    assert json.loads((tmp_path / "out" / "checks.json").read_text())["phases"].keys() == {"where"}


def test_a_phase_without_a_name_is_refused(tmp_path: Path) -> None:
    done = script(tmp_path / "out", "--only", "wide")
    assert done.returncode == 2
    assert "--only wide is none of where, right" in done.stderr


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A slot whose files are below the folder of a test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in [name for name in sys.modules if name.startswith("gpu_phases")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("DSTRUN_GPU_KIT", str(tmp_path / "kit"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BENCHMARKS.parent), str(BENCHMARKS)]))
    from gpu_phases.slot import Slot

    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    return Slot(tmp_path / "out", tmp_path / "work", "cpu", time.monotonic() + 60)


def test_checkpoints_are_handed_on(slot, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_phases import pack
    from gpu_phases.kit import KIT

    for name, epoch, size in (("far", 9, 600), ("near", 2, 600), ("middle", 5, 600)):
        run = slot.results / "group" / name
        run.mkdir(parents=True)
        (run / "checkpoint.pt").write_bytes(os.urandom(size))
        (run / "status.json").write_text(json.dumps({"epoch": epoch, "epochs": 10}))
    (slot.results / "group" / "done").mkdir()
    (slot.results / "group" / "done" / "record.json").write_text("{}")
    (slot.results / "group" / "done" / "checkpoint.pt").write_bytes(b"x")
    monkeypatch.setattr(pack, "LIMIT", 900)
    pack.pack(slot)
    assert names(slot.out / "resume-1.tar.gz") == ["group/far/checkpoint.pt"]
    assert names(slot.out / "resume-2.tar.gz") == ["group/middle/checkpoint.pt"]
    assert "no room for the checkpoint of near" in (slot.out / "log.txt").read_text()
    assert "group/done/record.json" in names(slot.out / "records.tar.gz")
    (KIT / "resume").mkdir(parents=True)
    for name in pack.ARCHIVES:
        (slot.out / name).rename(KIT / "resume" / name)
    before = (slot.results / "group" / "far" / "checkpoint.pt").read_bytes()
    slot.results.rename(slot.work / "old")
    pack.unpack(slot)
    assert (slot.results / "group" / "far" / "checkpoint.pt").read_bytes() == before
    assert not (slot.results / "group" / "near" / "checkpoint.pt").exists()


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as made:
        return made.getnames()


def test_what_a_job_does_not_come_to_is_told(slot) -> None:
    from gpu_phases import jobs

    work = [
        jobs.Job("broken", "gpu_phases.nowhere:nothing", {}, ["first"]),
        jobs.Job("slow", "time:sleep", {}, ["second"]),
        jobs.Job("late", "gpu_phases.nowhere:nothing", {}, ["third"]),
    ]
    jobs.run(slot, work[:1], 1, time.monotonic() + 30)
    jobs.run(slot, work[1:], 1, time.monotonic() - 1)
    assert slot.checks["first"]["state"] == "failed"
    assert "No module named 'gpu_phases.nowhere'" in slot.checks["first"]["told"]
    assert slot.checks["second"] == {"state": "cut", "told": "not begun when the phase was over"}
    assert slot.checks["third"]["state"] == "cut"


def test_the_kit_takes_the_images_and_what_a_slot_left(tmp_path: Path) -> None:
    images, left, kit = tmp_path / "images", tmp_path / "left", tmp_path / "kit"
    (images / "cifar10").mkdir(parents=True)
    left.mkdir()

    def packed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCHMARKS / "gpu_kit.py"), "--data", str(images), *words]
        environment = {**os.environ, "DSTRUN_GPU_KIT": str(kit)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert packed().returncode == 2
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "notes.txt"):
        (images / "cifar10" / name).write_text(name)
    assert packed("--resume", str(left)).returncode == 2
    (left / "records.tar.gz").write_bytes(b"records")
    done = packed("--resume", str(left))
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (kit / "data").iterdir())
    assert found == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert (kit / "resume" / "records.tar.gz").read_bytes() == b"records"
    assert (kit / "commit").is_file()
