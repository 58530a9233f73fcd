from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from dstrun.dataset import parquet, published
from dstrun.dataset.cifar import CIFAR10, CIFAR100
from dstrun.dataset.images import Images
from dstrun.system.trouble import ConfigError

Shard = Callable[..., Path]
PIXELS = np.random.RandomState(0).randint(0, 256, (30, 32, 32, 3), dtype=np.uint8)
LABELS = [n % 10 for n in range(30)]
TRAIN, TEST = slice(0, 20), slice(20, 30)


class Small(CIFAR10):
    __module__ = CIFAR10.__module__
    train_count = 20
    test_count = 10
    pickles = ("data_batch_1", "test_batch")


class Small100(CIFAR100):
    __module__ = CIFAR100.__module__
    classes = 10
    train_count = 20
    test_count = 10


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DSTRUN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path, shard: Shard) -> Path:
    folder = tmp_path / "root"
    shard(folder / "train-00000-of-00002.parquet", PIXELS[:8], LABELS[:8])
    shard(folder / "train-00001-of-00002.parquet", PIXELS[8:20], LABELS[8:20])
    shard(folder / "test-00000-of-00001.parquet", PIXELS[TEST], LABELS[TEST])
    return folder


def whole(images: Images) -> bool:
    pixels = PIXELS.transpose(0, 3, 1, 2)
    return (
        np.array_equal(images.train_x, pixels[TRAIN])
        and np.array_equal(images.eval_x, pixels[TEST])
        and images.train_y.tolist() == LABELS[TRAIN]
        and images.eval_y.tolist() == LABELS[TEST]
        and images.train_x.dtype == images.eval_x.dtype == np.uint8
        and images.train_y.dtype == images.eval_y.dtype == np.int64
    )


def refusal(option: CIFAR10) -> str:
    with pytest.raises(ConfigError) as error:
        option.load()
    return str(error.value)


def test_decoded_once_and_then_mapped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Small(root=str(root)).load()
    monkeypatch.setattr(parquet, "read", None)
    second = Small(root=str(root)).load()
    assert whole(first)
    assert whole(second)
    assert first.source == second.source
    assert isinstance(second.train_x, np.memmap)
    assert second.split == "test"


def test_other_files_are_decoded_anew(root: Path, shard: Shard) -> None:
    first = Small(root=str(root)).load()
    shard(root / "test-00000-of-00001.parquet", PIXELS[10:20], LABELS[10:20])
    second = Small(root=str(root)).load()
    assert first.source != second.source
    assert np.array_equal(second.eval_x, PIXELS[10:20].transpose(0, 3, 1, 2))


def test_shards_in_a_folder_named_after_the_data_set(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    root.rename(tmp_path / "data" / "cifar10")
    assert whole(Small(root=str(tmp_path / "data")).load())
    monkeypatch.setenv("DSTRUN_DATA", str(tmp_path / "data"))
    assert whole(Small().load())
    monkeypatch.delenv("DSTRUN_DATA")
    monkeypatch.chdir(tmp_path)
    assert whole(Small().load())


def test_limit_and_validation(root: Path) -> None:
    option = Small(root=str(root), validation=6, limit=9)
    images = option.load()
    assert images.split == "validation"
    assert (len(images.train_y), len(images.eval_y)) == (option.train_images, 6)
    pixels = PIXELS[TRAIN].transpose(0, 3, 1, 2)
    where = [int(np.flatnonzero((pixels == x).all((1, 2, 3)))[0]) for x in [*images.train_x, *images.eval_x]]
    assert len(set(where)) == 15
    assert [LABELS[n] for n in where] == [*images.train_y, *images.eval_y]


def test_cifar100_learns_the_fine_labels(tmp_path: Path, shard: Shard) -> None:
    for split, part in (("train", TRAIN), ("test", TEST)):
        coarse = {"coarse_label": [0] * len(LABELS[part])}
        path = tmp_path / f"root/{split}-00000-of-00001.parquet"
        shard(path, PIXELS[part], LABELS[part], label="fine_label", more=coarse)
    assert whole(Small100(root=str(tmp_path / "root")).load())
    assert refusal(Small(root=str(tmp_path / "root"))) == (
        f"{tmp_path / 'root'}/train-00000-of-00001.parquet has no label column label: "
        "its columns are img, fine_label, coarse_label"
    )


def test_mislabelled_images_are_refused(root: Path, shard: Shard, tmp_path: Path) -> None:
    shard(root / "train-00001-of-00002.parquet", PIXELS[8:20], [9, *LABELS[9:20]])
    assert refusal(Small(root=str(root))) == (
        f"{root}/train-00000-of-00002.parquet, {root}/train-00001-of-00002.parquet: mislabelled, "
        "class 8 has 1 images where cifar10 has 2"
    )
    assert os.listdir(tmp_path / "cache") == []


def test_a_wrong_number_of_images_is_refused(root: Path, shard: Shard) -> None:
    path = shard(root / "test-00000-of-00001.parquet", PIXELS[20:29], LABELS[20:29])
    assert refusal(Small(root=str(root))) == f"{path} has 9: 9 images where there must be 10"


def test_a_missing_shard_or_split_is_refused(root: Path) -> None:
    (root / "train-00001-of-00002.parquet").unlink()
    assert refusal(Small(root=str(root))).startswith(f"{root}/train-00001-of-00002.parquet is missing: ")
    (root / "train-00000-of-00002.parquet").unlink()
    assert refusal(Small(root=str(root))) == f"{root} has no train-*.parquet"


def test_a_root_that_is_not_there(root: Path) -> None:
    missing = root.parent / "rot"
    assert refusal(Small(root=str(missing))) == f"dataset.root={missing} is not a folder (did you mean root?)"
    missing = root.parent / "nowhere" / "root"
    assert refusal(Small(root=str(missing))) == f"dataset.root={missing} is not a folder"
    assert refusal(Small(download=False)) == (
        "data is not a folder and dataset.download=false: set dataset.root=DIR or $DSTRUN_DATA"
    )


def test_a_root_that_holds_nothing_is_never_downloaded_into(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert refusal(Small(root=str(root))) == (
        f"{root} holds no cifar10: neither it nor {root}/cifar10 has train-*.parquet or cifar-10-batches-py; "
        "dataset.download=true downloads it"
    )
    assert os.listdir(root) == []


def write_pickles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy of the original pickles and tell torchvision its checksums."""
    import torchvision

    folder.mkdir(parents=True)
    known = []
    contents = {
        name: {"data": PIXELS[part].transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": LABELS[part]}
        for name, part in (("data_batch_1", TRAIN), ("test_batch", TEST))
    }
    for name, content in {**contents, "batches.meta": {"label_names": list("abcdefghij")}}.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        known.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    reader = torchvision.datasets.CIFAR10
    monkeypatch.setattr(reader, "train_list", known[:1])
    monkeypatch.setattr(reader, "test_list", known[1:2])
    monkeypatch.setattr(reader, "meta", {"filename": "batches.meta", "key": "label_names", "md5": known[2][1]})
    return folder


def test_the_original_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pickles(tmp_path / "root/cifar-10-batches-py", monkeypatch)
    option = Small(root=str(tmp_path / "root"))
    assert whole(option.load())
    with (folder / "test_batch").open("ab") as file:
        file.write(b"0")
    remedy = f"remove {folder} and download cifar10 again"
    assert refusal(option) == f"{folder}/test_batch is missing or damaged: {remedy}"
    (folder / "data_batch_1").unlink()
    assert refusal(option) == f"{folder}/data_batch_1 is missing: {remedy}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a small archive where torchvision downloads from."""
    import torchvision

    folder = write_pickles(tmp_path / "pickles/cifar-10-batches-py", monkeypatch)
    archive = tmp_path / "served/cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent))) as server:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield archive
        server.shutdown()
        thread.join()


def test_a_missing_data_set_is_downloaded_into_thecache_folder(archive: Path) -> None:
    assert whole(Small().load())
    assert os.listdir(".") == ["data"]
    assert os.listdir("data") == ["cifar-10-batches-py"]
    archive.unlink()
    assert whole(Small(download=False).load())
    assert whole(Small(download=True).load())


def test_a_named_root_is_downloaded_into_when_asked(tmp_path: Path, archive: Path) -> None:
    root = tmp_path / "new" / "root"
    assert whole(Small(root=str(root), download=True).load())
    assert os.listdir(root) == ["cifar-10-batches-py"]


def test_a_run_that_downloaded_at_the_same_time_was_first(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        target.mkdir()
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert whole(Small().load())
    assert os.listdir("data") == ["cifar-10-batches-py"]


def test_a_damaged_download_leaves_nothing_behind(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"0")
    assert refusal(Small()) == (
        "cifar10 could not be downloaded into data (File not found or corrupted.): "
        "dataset=digits works offline, dataset.root=DIR uses a copy"
    )
    assert os.listdir(".") == []


def test_an_archive_writes_nowhere_else(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "pickles/cifar-10-batches-py/test_batch", "../written")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    before = tarfile.TarFile.extraction_filter
    assert "could not be downloaded into data ('../written' would be extracted to" in refusal(Small())
    assert os.listdir(".") == []
    assert tarfile.TarFile.extraction_filter is before


def test_no_network_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    sentence = refusal(Small())
    assert sentence.startswith("cifar10 could not be downloaded into data ([Errno ")
    assert sentence.endswith("Connection refused): dataset=digits works offline, dataset.root=DIR uses a copy")
    assert os.listdir(".") == []


def test_a_silent_network_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(published, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        start = time.monotonic()
        assert "timed out" in refusal(Small())
    assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None
    assert os.listdir(".") == []


def test_options_import_without_heavy_libraries() -> None:
    script = """
import sys
from dstrun.dataset import cifar, digits, image_folder, imagenet, torchvision
cifar.CIFAR10(), cifar.CIFAR100(), digits.Digits(), torchvision.Torchvision(), imagenet.ImageNet()
image_folder.ImageFolder(root=".")
print({"torch", "torchvision", "PIL", "pyarrow", "sklearn", "pandas"} & set(sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_counts_are_those_of_the_published_data_sets() -> None:
    for option in (CIFAR10(), CIFAR100()):
        assert (option.train_count, option.test_count, option.train_images) == (50_000, 10_000, 50_000)
        assert option.image == (3, 32, 32)
    assert (CIFAR10.classes, CIFAR100.classes) == (10, 100)


REAL = Path(__file__).parents[2].parent / "shared/data"


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="no CIFAR-10 in ../shared/data")
class TestReal:
    def test_images_are_those_of_cifar10(self, real_cache: Path) -> None:
        images = CIFAR10(root=str(REAL)).load(real_cache)
        assert images.train_x.shape == (50_000, 3, 32, 32)
        assert images.eval_x.shape == (10_000, 3, 32, 32)
        x = images.train_x[:5000] / 255
        assert x.mean((0, 2, 3)) == pytest.approx([0.4925, 0.4819, 0.4453], abs=1e-4)
        assert x.std((0, 2, 3)) == pytest.approx([0.2466, 0.2449, 0.2632], abs=1e-4)
        assert np.bincount(images.train_y).tolist() == [5000] * 10
        assert np.bincount(images.eval_y).tolist() == [1000] * 10

    def test_the_second_load_is_mapped_and_equal(self, real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = CIFAR10(root=str(REAL / "cifar10")).load(real_cache)
        monkeypatch.setattr(parquet, "read", None)
        second = CIFAR10(root=str(REAL / "cifar10")).load(real_cache)
        assert isinstance(second.train_x, np.memmap)
        assert np.array_equal(first.train_x, second.train_x)
        assert np.array_equal(first.eval_y, second.eval_y)

    def test_validation_is_about_balanced_and_apart(self, real_cache: Path) -> None:
        images = CIFAR10(root=str(REAL), validation=5000).load(real_cache)
        assert (len(images.train_y), len(images.eval_y), images.split) == (45_000, 5000, "validation")
        assert np.bincount(images.eval_y).min() > 400
        assert (np.bincount(images.train_y) + np.bincount(images.eval_y)).tolist() == [5000] * 10

    def test_no_warning_on_the_way_to_torch(self, real_cache: Path) -> None:
        from dstrun.dataset.loader import Resident

        option = CIFAR10(root=str(REAL), limit=2000)
        loader = Resident(option.load(real_cache), option, "cpu", 128, 0, option.augment)
        assert loader.steps_per_epoch == 15
        x, _ = loader.batch(0)
        assert x.shape == (128, 3, 32, 32)
        assert abs(x.mean()) < 0.3
