from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from image_files import LAYOUTS, as_folders, as_parquet, as_tar, of_two_classes

from dstrun.dataset import listing
from dstrun.dataset.decode import encoded
from dstrun.system.trouble import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))


FILES = of_two_classes(10)


def listed(root: Path, splits: tuple[str, ...] = ("train",)) -> listing.Listing:
    found = listing.layout(root, splits)
    assert found is not None
    return found.read(found.classes)


@pytest.mark.parametrize("layout", [*LAYOUTS, "tar of folders"])
def test_every_layout_lists_the_same_images(layout: str, tmp_path: Path) -> None:
    make = LAYOUTS.get(layout, lambda root, splits: as_tar(root, splits, labels=False))
    found = listed(make(tmp_path / "set", {"train": FILES}))
    assert (found.classes, found.label.tolist()) == (("0", "1"), [0] * 5 + [1] * 5)
    assert [encoded(found.place(i)) for i in range(10)] == [data for _, data in FILES]
    assert (found.group is None) == (layout != "parquet")


def test_headers_of_shards_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = as_tar(tmp_path / "set", {"train": FILES})
    first = listed(root)
    with monkeypatch.context() as patched:
        patched.setattr(listing, "_members", lambda path: pytest.fail("read again"))
        again = listed(root)
    assert again.digest() == first.digest()
    assert again.classes == first.classes
    (root / "set-train-000001.tar").unlink()
    assert len(listed(root)) == 5


def test_classes_are_chosen_and_numbered_in_their_own_order(tmp_path: Path) -> None:
    files = [(name, data) for name in ("10", "9", "100") for _, data in FILES[:2]]
    found = listing.layout(as_folders(tmp_path, {"train": files}), ("train",))
    assert found is not None
    assert listing.chosen(found.classes, None, "") == ["9", "10", "100"]
    assert listing.chosen(found.classes, ("100", "9"), "") == ["9", "100"]
    some = found.read(listing.chosen(found.classes, 2, ""))
    assert some.of_classes(["10"]).label.tolist() == [0, 0]
    with pytest.raises(ConfigError, match=r"only: 99 is not a class here \(did you mean 9\?\)"):
        listing.chosen(found.classes, ("99",), "only")
    with pytest.raises(ConfigError, match="only=4 must be at most 3, the number of classes"):
        listing.chosen(found.classes, 4, "only")


def test_the_checksum_tells_names_sizes_and_labels_and_not_the_place(tmp_path: Path) -> None:
    first = listed(as_folders(tmp_path / "a", {"train": FILES})).digest()
    assert listed(as_folders(tmp_path / "b", {"train": FILES})).digest() == first
    image = next((tmp_path / "b").rglob("0003.png"))
    with image.open("ab") as file:
        file.write(b"x")
    longer = listed(tmp_path / "b").digest()
    image.rename(image.with_name("0004x.png"))
    assert len({first, longer, listed(tmp_path / "b").digest()}) == 3


def test_hidden_files_are_left_out_and_others_told(tmp_path: Path) -> None:
    as_folders(tmp_path, {"train": FILES})
    (tmp_path / "train/0/.DS_Store").touch()
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/0/deeper").mkdir()
    os.rename(tmp_path / "train/0/0000.png", tmp_path / "train/0/deeper/0000.PNG")
    os.mkfifo(tmp_path / "train/1/pipe.png")
    (tmp_path / "train/1/notes.txt").touch()
    found = listed(tmp_path)
    assert len(found) == 10
    assert sorted(Path(name).name for name in found.stray) == ["notes.txt", "pipe.png"]


def damaged(tmp_path: Path, what: str) -> None:
    if what == "flat":
        (tmp_path / "train").mkdir()
        (tmp_path / "train/a.JPEG").touch()
    elif what == "empty class":
        as_folders(tmp_path, {"train": FILES})
        (tmp_path / "train/2").mkdir()
    elif what == "missing shard":
        as_tar(tmp_path / "set", {"train": FILES})
        os.rename(tmp_path / "set/set-train-000001.tar", tmp_path / "set/set-train-000002.tar")
    elif what == "cut tar":
        as_tar(tmp_path / "set", {"train": FILES})
        os.truncate(tmp_path / "set/set-train-000000.tar", 3000)
    elif what == "no tar":
        as_tar(tmp_path / "set", {"train": FILES})
        (tmp_path / "set/set-train-000000.tar").write_bytes(b"x" * 2000)
    elif what == "long header":
        as_tar(tmp_path / "set", {"train": FILES})
        header = bytearray(1 << 22)
        header[:5], header[124:136], header[156:157] = b"train", b"00010000000\0", b"x"  # 2 MiB of extended header
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
        (tmp_path / "set/set-train-000000.tar").write_bytes(header)
    elif what == "no label":
        as_tar(tmp_path / "set", {"train": [("", data) for _, data in FILES]}, labels=True)
    elif what == "secret labels":
        as_parquet(tmp_path / "set", {"train": [("-1", data) for _, data in FILES]})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("flat", r"train holds images \(a.JPEG\) and no class folders"),
        ("empty class", "train/2 holds no image"),
        ("missing shard", "has no shard 1 of train"),
        ("cut tar", "set-train-000000.tar is cut off"),
        ("no tar", "set-train-000000.tar cannot be read as tar"),
        ("long header", "a header of 2,097,"),
        ("no label", "0000.cls holds '', which is not a label"),
        ("secret labels", "a label is -1"),
    ],
)
def test_what_cannot_be_listed_is_said(what: str, says: str, tmp_path: Path) -> None:
    damaged(tmp_path, what)
    root = tmp_path / "set" if (tmp_path / "set").exists() else tmp_path
    with pytest.raises(ConfigError, match=says):
        listed(root)


def test_a_choice_keeps_labels_and_row_groups(tmp_path: Path) -> None:
    found = listed(as_parquet(tmp_path / "set", {"train": FILES}))
    some = found.take(np.array([8, 1]))
    assert some.label.tolist() == [1, 0]
    assert [encoded(some.place(i)) for i in range(2)] == [FILES[8][1], FILES[1][1]]
    assert found.group is not None
    assert some.group is not None
    assert some.group.tolist() == [found.group[8], found.group[1]]
