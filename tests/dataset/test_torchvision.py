from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dstrun.dataset import torchvision as module
from dstrun.dataset.torchvision import IDX, Known, Torchvision
from dstrun.system.trouble import ConfigError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = {name: Known(one.image, 30, 10, one.flip) for name, one in module.SETS.items()}
    monkeypatch.setattr(module, "SETS", known)
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def write(place: Path, packed: bool = False) -> dict[str, np.ndarray]:
    """Write files of MNIST's format, by torchvision's reading of it."""
    place.mkdir(parents=True)
    random, arrays = np.random.default_rng(0), {}
    for key, name in IDX.items():
        shape = (30 if key.startswith("train") else 10, *((28, 28) if key.endswith("x") else ()))
        arrays[key] = random.integers(0, 256 if key.endswith("x") else 10, shape, np.uint8)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        data = header + arrays[key].tobytes()
        path = place / f"{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return arrays


@pytest.mark.parametrize("place", ["KMNIST/raw", "KMNIST", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_and_read_as_torchvision_does(place: str, packed: bool, tmp_path: Path) -> None:
    expected = write(tmp_path / "root" / place if place != "." else tmp_path / "root", packed)
    images = Torchvision(name="KMNIST", root="root").load()
    assert np.array_equal(images.train_x[:, 0], expected["train_x"])
    assert np.array_equal(images.eval_y, expected["test_y"])
    assert images.statistics is not None
    mean, std = images.statistics
    assert mean[0] == pytest.approx(expected["train_x"].mean() / 255, abs=5e-5)
    assert std[0] == pytest.approx(expected["train_x"].std() / 255, abs=5e-5)
    if place == "KMNIST/raw" and not packed:
        import torchvision.datasets

        theirs = torchvision.datasets.KMNIST("root", train=False)
        assert torch.equal(theirs.data, torch.from_numpy(images.eval_x[:, 0]))
        assert torch.equal(theirs.targets, torch.from_numpy(images.eval_y))


def test_batches_are_normalised_by_the_images_own_statistics(tmp_path: Path) -> None:
    write(tmp_path / "root/MNIST")
    x, y = Torchvision(root="root").open("cpu", 30, 0).batch(0)
    assert (x.shape, y.shape) == ((30, 1, 28, 28), (30,))
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3


def test_svhn_is_read_where_its_checksum_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io
    import torchvision.datasets

    random, lists = np.random.default_rng(0), {}
    for split, count in (("train", 30), ("test", 10)):
        path = tmp_path / f"{split}_32x32.mat"
        labels = np.arange(count) % 10 + 1  # 10 is the digit 0
        scipy.io.savemat(path, {"X": random.integers(0, 256, (32, 32, 3, count), np.uint8), "y": labels[:, None]})
        lists[split] = ["url", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    images = Torchvision(name="SVHN", root=str(tmp_path)).load()
    assert images.train_x.shape == (30, 3, 32, 32)
    assert images.eval_y.tolist() == [*range(1, 10), 0]
    (tmp_path / "test_32x32.mat").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"test_32x32.mat is damaged: fetch SVHN again"):
        Torchvision(name="SVHN", root=str(tmp_path)).load()


def spoilt(place: Path, what: str) -> None:
    path = place / f"{IDX['train_x']}-ubyte"
    if what == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "long":
        path.write_bytes(path.read_bytes() + b"x")
    elif what == "other":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    elif what == "missing":
        (place / f"{IDX['test_y']}-ubyte").unlink()
    elif what == "packed":
        write(place.parent / "gz", packed=True)
        whole = (place.parent / f"gz/{path.name}.gz").read_bytes()
        for file in place.iterdir():
            file.rename(file.with_suffix(".gz") if file.suffix else f"{file}.gz")
        (place / f"{path.name}.gz").write_bytes(whole[:-50])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("short", "train-images-idx3-ubyte is damaged: it must hold 30x28x28 bytes"),
        ("long", "train-images-idx3-ubyte is damaged"),
        ("other", "train-images-idx3-ubyte is damaged"),
        ("missing", "t10k-labels-idx1-ubyte is missing: fetch MNIST again"),
        ("packed", "cannot be read, fetch it again"),
    ],
)
def test_damaged_files_are_said(what: str, says: str, tmp_path: Path) -> None:
    write(tmp_path / "root/MNIST")
    spoilt(tmp_path / "root/MNIST", what)
    with pytest.raises(ConfigError, match=says):
        Torchvision(root="root").load()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "MNISt"}, "dataset.name=MNISt is not known: choose MNIST, .*did you mean MNIST"),
        ({"root": "nowhere"}, "dataset.root=nowhere is not a folder"),
        ({"root": "."}, r". holds no MNIST: neither it nor MNIST has train-images-idx3-ubyte\(.gz\); dataset.download"),
        ({"limit": 31}, "dataset.limit=31 must be at most 30"),
    ],
)
def test_wrong_settings_are_said(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Torchvision(**settings).check()


def test_a_download_is_moved_into_place_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    asked = []

    def reader(folder: Path, download: bool) -> None:
        asked.append(folder)
        write(Path(folder, "FashionMNIST/raw"))
        assert download

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", reader)
    option = Torchvision(name="FashionMNIST")
    option.check()
    assert (asked, option.found()) == ([], None)
    assert len(option.load().train_y) == 30
    assert option.found() is not None
    assert sorted(path.name for path in Path("data").iterdir()) == ["FashionMNIST"]
    option.load()
    assert len(asked) == 1
