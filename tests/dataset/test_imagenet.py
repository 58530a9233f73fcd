from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import as_folders, as_parquet, of_two_classes, picture
from PIL import Image

from dstrun.config.composition import compose
from dstrun.dataset.image_folder import ImageFolder
from dstrun.dataset.imagenet import ImageNet
from dstrun.dataset.listed import statistics
from dstrun.dataset.loader import Resident
from dstrun.run import plan
from dstrun.system.trouble import ConfigError

SPLITS = {"train": of_two_classes(20), "val": of_two_classes(6, first=100)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return as_folders(tmp_path / "set", SPLITS)


def test_its_counts_are_known_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSTRUN_DATA", raising=False)
    option = ImageNet(validation=1167)
    assert (option.image, option.classes, option.train_images) == ((3, 224, 224), 1000, 1_280_000)
    assert (ImageNet(limit=5).train_images, option.test_count, option.found()) == (5, 50_000, None)
    with pytest.raises(ConfigError, match="data holds no images: neither folders of classes in train/, nor"):
        option.check()
    with pytest.raises(ConfigError, match="class_subset can be counted only where the images are"):
        _ = ImageNet(class_subset=100).train_images
    as_folders(tmp_path / "set", SPLITS)
    with pytest.raises(ConfigError, match=r"sat holds no images \(did you mean set\?\)"):
        _ = ImageNet(root="sat").train_images


def test_what_is_there_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTRUN_DATA", str(root))
    option = ImageNet()
    assert (option.classes, option.train_images, option.test_count) == (2, 20, 6)
    assert option.found() == option.checksum() == ImageNet(root=str(root), limit=3).found()
    words = ["dataset=imagenet", f"dataset.root={root}", "model=resnet20", "batch_size=4", "epochs=3", "sparsity=0.5"]
    assert plan.plan(compose(words))["flops"]["steps"] == 15
    with pytest.raises(ConfigError, match="batch_size=21 must be at most 20"):
        compose([*words, "batch_size=21"])


def test_without_augmentation_it_trains_on_what_is_evaluated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import v2

    monkeypatch.setenv("DSTRUN_CACHE", str(root.parent / "cache"))
    loader = ImageNet(root=str(root), augment=False, workers=0, limit=2).open("cpu", 2, 0)
    assert isinstance(loader, Resident)
    made = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    option = ImageNet(root=str(root), limit=2)
    assert option.parts is not None
    expected = [made(Image.open(option.parts.train.place(i).path)).numpy() for i in range(2)]
    assert np.array_equal(loader.images.train_x, expected)


def test_limit_and_validation_draw_from_all_classes(root: Path) -> None:
    option = ImageNet(root=str(root), validation=6, limit=8)
    loader = option.open("cpu", 4, 0)
    assert (loader.train_count, len(loader.eval_labels), loader.split) == (8, 6, "validation")
    assert set(loader.labels.tolist()) == set(loader.eval_labels.tolist()) == {0, 1}
    parts = option.parts
    assert parts is not None
    places = {listing.place(i).path for listing in (parts.train, parts.held) for i in range(len(listing))}
    assert len(places) == 14


def test_a_subset_of_classes(tmp_path: Path) -> None:
    files = {split: [(name, picture(int(name))) for name in ("3", "5", "7") * 4] for split in ("train", "validation")}
    for made in (as_folders(tmp_path / "a", files), as_parquet(tmp_path / "b", files)):
        option = ImageNet(root=str(made), class_subset=[7, 3])  # type: ignore[arg-type]
        assert (option.classes, option.train_images, option.test_count) == (2, 8, 8)
        assert option.parts is not None
        assert option.parts.held.classes == ("3", "7")
        assert ImageNet(root=str(made), class_subset=1).classes == 1


def made(root: Path, what: str) -> dict[str, Any]:
    if what == "stray":
        (root / "train/0/notes.txt").touch()
    elif what == "other class":
        (root / "val/0").rename(root / "val/2")
    elif what == "no val":
        (root / "val").rename(root / "elsewhere")
    return {"twice": {"class_subset": ("0", "0")}, "many": {"validation": 20}}.get(what, {})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("stray", r"train/0/notes.txt does not have the suffix of an image: remove it, or dataset.damaged=skip"),
        ("other class", "2 is a class of images to evaluate on, but not of training images"),
        ("no val", "none in val or validation or test to evaluate on: dataset.validation=N"),
        ("twice", r"dataset.class_subset=\['0', '0'\] must name each class once"),
        ("many", "dataset.validation=20 must be below 20"),
    ],
)
def test_what_makes_no_data_set_is_said(what: str, says: str, root: Path) -> None:
    settings = made(root, what)
    with pytest.raises(ConfigError, match=says):
        ImageNet(root=str(root), **settings).check()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "dataset=image_folder needs dataset.root=DIR"),
        ({"root": ".", "mean": [0.5] * 3}, "dataset.mean and dataset.std go together"),
        ({"root": ".", "mean": [0.5], "std": [1.0]}, r"dataset.mean=\[0.5\] must have three values"),
        ({"root": ".", "mean": [0.5] * 3, "std": [1, 1, 0]}, r"dataset.std=\[1, 1, 0\] must be above 0"),
        (
            {"root": ".", "augment": "none", "flip": False},
            "dataset.flip=false makes no sense with dataset.augment=none",
        ),
        ({"root": ".", "size": 4}, r"dataset.size=4 must be in \[8, 1024\]"),
    ],
)
def test_wrong_settings_of_a_folder_are_said(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ImageFolder(**settings)


def test_a_folder_is_split_by_validation_and_normalised_by_its_own_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))
    root = as_folders(tmp_path, {"set": SPLITS["train"]}) / "set"
    with pytest.raises(ConfigError, match=r"dataset.validation=N holds out N of them"):
        ImageFolder(root=str(root)).check()
    option = ImageFolder(root=str(root), validation=5, size=16, augment="none", workers=0)
    loader = option.open("cpu", 15, 0)
    assert isinstance(loader, Resident)
    assert (loader.train_count, len(loader.eval_labels)) == (15, 5)
    x, _ = loader.batch(0)
    assert x.mean((0, 2, 3)).abs().max() < 1e-3
    assert (x.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert loader.images.statistics == statistics(loader.images.train_x)
    streamed = ImageFolder(root=str(root), validation=5, size=16, workers=0).open("cpu", 15, 0)
    assert abs(streamed.batch(0)[0].mean()) < 0.3
