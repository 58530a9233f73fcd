from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dstrun.dataset import cache
from dstrun.dataset.cache import cached, checksum, remembered
from dstrun.system.trouble import ConfigError

SHAPES = {"x": ((50, 3), np.uint8), "y": ((50,), np.int64)}
SOURCE = "0123456789abcdef" * 4
FOLDER = "cifar-0123456789abcdef"


def decode() -> dict[str, np.ndarray]:
    return {"x": np.arange(150, dtype=np.uint8).reshape(50, 3), "y": np.arange(50)}


def never() -> dict[str, np.ndarray]:
    raise AssertionError("decoded again")


def same(found: dict[str, np.ndarray]) -> bool:
    return found.keys() == SHAPES.keys() and all(np.array_equal(found[key], array) for key, array in decode().items())


def test_decodes_once_and_then_maps(tmp_path: Path) -> None:
    first = cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    second = cached("cifar", SOURCE, SHAPES, never, tmp_path)
    assert same(first)
    assert same(second)
    assert all(isinstance(array, np.memmap) for array in [*first.values(), *second.values()])
    assert os.listdir(tmp_path) == [FOLDER]
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["checksums.json", "x.npy", "y.npy"]


def test_arrays_of_any_shape_are_remembered_and_made_again_where_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"a": np.arange(7), "b": np.array(["x", "yy"])}

    for _ in range(2):
        found = remembered("list", "0" * 64, make, tmp_path / "cache")
        assert (found["a"].tolist(), found["b"].tolist()) == (list(range(7)), ["x", "yy"])
    assert len(made) == 1
    [path] = (tmp_path / "cache").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    assert remembered("list", "0" * 64, make, tmp_path / "cache")["a"].tolist() == list(range(7))
    assert len(made) == 2
    assert "is damaged: it is rebuilt" in caplog.text
    (tmp_path / "cache").chmod(0o777)
    remembered("list", "0" * 64, make, tmp_path / "cache")
    assert len(made) == 3


def test_writing_to_the_arrays_changes_no_file(tmp_path: Path) -> None:
    found = cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    found["x"][:] = 7
    assert same(cached("cifar", SOURCE, SHAPES, never, tmp_path))


def test_other_sources_and_data_sets_are_kept_apart(tmp_path: Path) -> None:
    cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    for name, source in (("cifar", SOURCE[::-1]), ("digits", SOURCE)):
        with pytest.raises(AssertionError, match="decoded again"):
            cached(name, source, SHAPES, never, tmp_path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'shape'", b"(shape('"))


def retype(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int16))


def reshape(path: Path) -> None:
    np.save(path, np.load(path)[::2])


def transpose(path: Path) -> None:
    np.save(path, np.asfortranarray(np.load(path)))


@pytest.mark.parametrize("damage", [truncate, lengthen, empty, garble, retype, reshape, transpose, os.remove])
def test_a_damaged_file_is_rebuilt(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    damage(tmp_path / FOLDER / "x.npy")
    assert same(cached("cifar", SOURCE, SHAPES, decode, tmp_path))
    assert same(cached("cifar", SOURCE, SHAPES, never, tmp_path))
    assert os.listdir(tmp_path) == [FOLDER]


def test_a_failed_decoding_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="decoded again"):
        cached("cifar", SOURCE, SHAPES, never, tmp_path)
    assert os.listdir(tmp_path) == []


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from dstrun.dataset import cache
sys.path.insert(0, sys.argv[1])
from test_cache import FOLDER, SHAPES, SOURCE, decode, same
folder = Path(sys.argv[2])
"""


def start(tmp_path: Path, script: str) -> subprocess.Popen[bytes]:
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": str(here.parents[2])}
    return subprocess.Popen([sys.executable, "-c", SCRIPT + script, str(here.parent), str(tmp_path)], env=environment)


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    script = """
def together():
    (folder / f"ready-{os.getpid()}").touch()
    while len(list(folder.glob("ready-*"))) < 2:
        time.sleep(0.001)
    return decode()
assert same(cache.cached("cifar", SOURCE, SHAPES, together, folder / "cache"))
"""
    processes = [start(tmp_path, script) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert os.listdir(tmp_path / "cache") == [FOLDER]
    assert same(cached("cifar", SOURCE, SHAPES, never, tmp_path / "cache"))


def test_the_files_of_a_process_that_was_first_are_left_alone(tmp_path: Path) -> None:
    files = []

    def late() -> dict[str, np.ndarray]:
        cached("cifar", SOURCE, SHAPES, decode, tmp_path)
        files.append((tmp_path / FOLDER / "x.npy").stat().st_ino)
        return decode()

    assert same(cached("cifar", SOURCE, SHAPES, late, tmp_path))
    assert files == [(tmp_path / FOLDER / "x.npy").stat().st_ino]
    assert os.listdir(tmp_path) == [FOLDER]


def test_what_a_killed_process_left_is_never_used(tmp_path: Path) -> None:
    script = """
write = cache._write
def die(path, array):
    write(path, array)
    os.kill(os.getpid(), signal.SIGKILL)
cache._write = die
cache.cached("cifar", SOURCE, SHAPES, decode, folder)
"""
    assert start(tmp_path, script).wait(60) == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert len(left) == 1
    assert os.listdir(tmp_path / left[0]) == ["x.npy"]
    with pytest.raises(AssertionError, match="decoded again"):
        cached("cifar", SOURCE, SHAPES, never, tmp_path)
    assert same(cached("cifar", SOURCE, SHAPES, decode, tmp_path))
    assert same(cached("cifar", SOURCE, SHAPES, never, tmp_path))


def test_an_unwritable_folder_is_named_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert same(cached("cifar", SOURCE, SHAPES, decode, tmp_path / "file" / "cache"))
    assert caplog.messages == [
        f"the cache folder {tmp_path}/file/cache cannot be written (Not a directory), and every run decodes "
        "its images again: set $DSTRUN_CACHE to a writable folder"
    ]


@pytest.mark.parametrize("at", ["mkdir", "_write", "_install"])
def test_a_disk_that_fills_up_is_done_without(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "mkdir") if at == "mkdir" else (cache, at)), full)
    count = []
    assert same(cached("cifar", SOURCE, SHAPES, lambda: count.append(1) or decode(), tmp_path))
    assert len(count) == 1
    assert "No space left" in caplog.text
    assert os.listdir(tmp_path) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "more").touch()


@pytest.mark.parametrize("file", ["x.npy", "y.npy", "checksums.json"])
@pytest.mark.parametrize("damage", [flip, fifo, folder, empty, os.remove])
def test_a_changed_byte_is_found(file: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    damage(tmp_path / FOLDER / file)
    count = []
    assert same(cached("cifar", SOURCE, SHAPES, lambda: count.append(1) or decode(), tmp_path))
    assert same(cached("cifar", SOURCE, SHAPES, never, tmp_path))
    assert count == [1]


@pytest.mark.parametrize("inner", [False, True])
def test_what_everybody_may_write_to_is_ignored(inner: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    (tmp_path / FOLDER if inner else tmp_path).chmod(0o777)
    count = []
    assert same(cached("cifar", SOURCE, SHAPES, lambda: count.append(1) or decode(), tmp_path))
    assert count == [1]
    assert "everybody may write to it" in caplog.text


def test_a_link_in_the_place_of_the_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FOLDER).symlink_to(tmp_path / "victim")
    assert same(cached("cifar", SOURCE, SHAPES, decode, tmp_path / "cache"))
    assert os.listdir(tmp_path / "victim") == []


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    gone, alive = (tmp_path / f".cifar-0123456789abcdef-{pid}-00000000" for pid in (2**22 + 1, os.getpid()))
    for left in (gone, alive):
        left.mkdir()
        os.utime(left, (time.time() - 3600,) * 2)
    (tmp_path / ".other-folder-1").mkdir()
    cached("cifar", SOURCE, SHAPES, decode, tmp_path)
    assert not gone.exists()
    assert alive.exists()
    assert (tmp_path / ".other-folder-1").exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DSTRUN_CACHE", raising=False)
    cached("cifar", SOURCE, SHAPES, decode)
    assert (tmp_path / "home/.cache/dstrun" / FOLDER / "y.npy").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached("cifar", SOURCE, SHAPES, decode)
    assert (tmp_path / "xdg/dstrun" / FOLDER / "y.npy").is_file()
    monkeypatch.setenv("DSTRUN_CACHE", "~/mine")
    cached("cifar", SOURCE, SHAPES, decode)
    assert (tmp_path / "home/mine" / FOLDER / "y.npy").is_file()


def test_checksum_depends_on_names_and_contents_but_not_on_the_folder(tmp_path: Path) -> None:
    def digest(folder: str, **contents: str) -> str:
        (tmp_path / folder).mkdir()
        for name, text in contents.items():
            (tmp_path / folder / name).write_text(text)
        return checksum([tmp_path / folder / name for name in contents])

    one = digest("1", a="x", b="yz")
    assert one == digest("2", a="x", b="yz")
    assert len({one, digest("3", a="xy", b="z"), digest("4", a="x", c="yz"), digest("5", a="yz", b="x")}) == 4


def test_checksum_of_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone cannot be read: No such file"):
        checksum([tmp_path / "gone"])
