from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import LAYOUTS, as_folders, of_two_classes

from dstrun.dataset import streaming
from dstrun.dataset.decode import Reader
from dstrun.dataset.image_folder import ImageFolder
from dstrun.dataset.loader import Loader, Resident
from dstrun.dataset.streaming import Streaming, window_order
from dstrun.system.ranks import Ranks
from dstrun.system.trouble import ConfigError

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")

SPLITS = {"train": of_two_classes(20), "test": of_two_classes(7, first=100)}
PLAIN = {"size": 16, "mean": [0.0] * 3, "std": [1 / 255] * 3, "workers": 0}


def opened(root: Path, batch_size: int = 8, seed: int = 0, ranks: Ranks | None = None, **settings: Any) -> Loader:
    option = ImageFolder(root=str(root), **PLAIN | settings)
    return option.open("cpu", batch_size, seed, ranks or Ranks())


def same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_folders(tmp_path_factory.mktemp("set"), SPLITS)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put a batch together of several chunks, and keep decoded images apart."""
    monkeypatch.setattr(streaming, "CHUNK", 3)
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))


def test_a_batch_depends_on_seed_and_step_alone(root: Path) -> None:
    straight = opened(root)
    assert straight.steps_per_epoch == 2
    batches = [straight.batch(step) for step in range(6)]
    for step in (5, 1, 2):
        assert same(opened(root).batch(step), batches[step])
    assert same(straight.batch(3), batches[3])
    assert not torch.equal(opened(root, seed=1).batch(1)[1], batches[1][1])
    assert not same(batches[0], batches[2])
    x, y = batches[0]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((8, 3, 16, 16), torch.float32, (8,), torch.int64)


@pytest.mark.parametrize("augment", ["shift", "none"])
def test_streamed_and_resident_images_are_the_same(augment: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = opened(root, augment=augment)
    assert type(resident) is Resident
    monkeypatch.setattr("dstrun.dataset.listed.RESIDENT_BYTES", 0)
    streamed = opened(root, augment=augment)
    assert type(streamed) is Streaming
    for step in (0, 3):
        assert same(streamed.batch(step), resident.batch(step))
        part = slice(3, 6)
        assert same(streamed.batch(step, part), tuple(t[part] for t in resident.batch(step)))  # type: ignore[arg-type]
        assert same(resident.batch(step, part), streamed.batch(step, part))
    assert same(streamed.sample(4, 7), resident.sample(4, 7))
    assert same(streamed.balanced(4, 3), resident.balanced(4, 3))
    for found, expected in zip(streamed.eval_batches(4), resident.eval_batches(4), strict=True):
        assert same(found, expected)


@pytest.mark.parametrize("layout", ["parquet", "tar"])
def test_the_layout_changes_no_number(layout: str, root: Path, tmp_path: Path) -> None:
    there, here = opened(LAYOUTS[layout](tmp_path / "set", SPLITS)), opened(root)
    assert all(same(there.batch(step), here.batch(step)) for step in range(3))
    assert [y.tolist() for _, y in there.eval_batches(4)] == [[0, 0, 0, 0], [1, 1, 1]]
    assert there.source != here.source


def test_processes_share_a_batch(root: Path) -> None:
    class Two(Ranks):
        rank, size = 1, 2

    whole, part = opened(root), opened(root, ranks=Two())
    assert same(part.batch(3), tuple(t[4:] for t in whole.batch(3)))  # type: ignore[arg-type]
    assert same(part.sample(3, 5), whole.sample(3, 5))
    pairs = list(whole.eval_batches(2))
    assert all(same(a, b) for a, b in zip(part.eval_batches(4), pairs[1::2], strict=True))


def below(number: int) -> list[int]:
    """Name the processes that descend from one and run."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found, last = {number}, 0
    while len(found) > last:
        last = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return sorted(found - {number})


def all_end(numbers: list[int], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while (alive := [n for n in numbers if Path(f"/proc/{n}").exists()]) and time.monotonic() < end:
        time.sleep(0.1)
    return not alive


@needs_proc
def test_workers_change_no_number_and_end(root: Path) -> None:
    here = opened(root)
    loader = opened(root, workers=2)
    assert same(loader.batch(1), here.batch(1))
    server = [child for child in below(os.getpid()) if below(child)]
    workers = below(server[0])
    assert len(workers) == 2
    for step in range(2, 5):
        assert same(loader.batch(step), here.batch(step))
    loader.close()
    assert all_end(workers)


def test_windows_hold_few_row_groups_and_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    group, sizes = np.repeat(np.arange(40), 5), np.full(40, 10)
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 100)
    orders = [window_order(group, sizes, 0, epoch) for epoch in range(2)]
    for order in orders:
        assert order.sort().values.tolist() == list(range(200))
        assert len(set(group[order[:45]])) == 9  # the first window
        assert max(len(set(group[part])) for part in order[45:].split(50)) == 10
        assert (order[:45].diff() < 0).sum() > 10
    assert orders[0].tolist() != orders[1].tolist()
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 1000)
    alone = window_order(np.zeros(200, np.int64), np.array([10]), 0, 0)
    assert torch.equal(window_order(group, sizes, 0, 0), alone)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    root = as_folders(tmp_path / "set", SPLITS)
    path = root / "train/1/0013.png"
    path.write_bytes(path.read_bytes()[:200])
    return root


def test_a_damaged_image_is_refused_by_name(broken: Path) -> None:
    with pytest.raises(ConfigError, match=r"train/1/0013.png cannot be decoded: .*dataset.damaged=skip"):
        [opened(broken).batch(step) for step in range(4)]


@pytest.mark.parametrize("resident", [True, False])
def test_a_damaged_image_is_skipped_for_another_one(
    resident: bool, broken: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dstrun.dataset.listed.RESIDENT_BYTES", resident << 30)
    settings: dict[str, Any] = {"batch_size": 20, "augment": "none", "damaged": "skip"}
    with caplog.at_level(logging.WARNING):
        loader = opened(broken, **settings)
        batches = [loader.batch(step) for step in range(3)]
    assert [r.getMessage() for r in caplog.records if "0013.png" in r.getMessage()] != []
    assert len([r for r in caplog.records if "0013.png" in r.getMessage()]) == 1
    told = [sorted(zip(x[:, 0, 8, 8].tolist(), y.tolist(), strict=True)) for x, y in batches]
    assert told[0] == told[1] == told[2]  # an epoch has the same images, one of them twice
    assert len(set(told[0])) == 19
    assert all(number % 2 == label for number, label in told[0])
    assert same(opened(broken, **settings).batch(2), batches[2])


def test_a_damaged_image_to_evaluate_on_is_refused(tmp_path: Path) -> None:
    root = as_folders(tmp_path, SPLITS)
    (root / "test/0/0001.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"test/0/0001.png is empty: fetch it again, or remove it$"):
        list(opened(root, damaged="skip").eval_batches(4))


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_request_whose_workers_die_again_is_said(deaths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [deaths]

    def loader(reader: Any, sampler: Any, **_: Any) -> Any:
        for request in sampler:
            if request == 2 and left[0]:
                left[0] -= 1
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
            yield request

    monkeypatch.setattr(streaming, "DataLoader", loader)
    found = streaming.answers(Reader(8, 8, False), lambda done: iter(range(done, 4)), workers=0)  # type: ignore
    if deaths == 1:
        assert list(found) == [0, 1, 2, 3]
    else:
        with pytest.raises(ConfigError, match=r"worker processes .* die \(.*Killed.*set dataset.workers lower"):
            list(found)


@pytest.mark.slow
@needs_proc
def test_workers_end_with_the_process_that_trains(root: Path) -> None:
    script = f"""
import sys, time
from dstrun.dataset.image_folder import ImageFolder
if __name__ == "__main__":
    option = ImageFolder(root={str(root)!r}, size=16, mean=[0.5] * 3, std=[1] * 3, workers=2)
    loader = option.open("cpu", 8, 0)
    loader.batch(0)
    print("ready", flush=True)
    for step in range(1, 100_000):
        loader.batch(step)
"""
    path = root.parent / "hold.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    started = below(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(started) >= 4  # two workers, what forks them, and what tracks their memory
    assert all_end(started)
