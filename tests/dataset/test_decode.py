from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import as_tar, of_two_classes, picture
from PIL import Image

from dstrun.dataset import decode, listing
from dstrun.dataset.decode import Damaged, Reader, Request
from dstrun.dataset.listing import Place

READER = Reader(16, 18, True)


def file(image: Image.Image, format: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def grey16() -> Image.Image:
    return Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (file(Image.new("L", (3, 3), 7)), (7, 7, 7)),
        (file(Image.new("1", (3, 3), 1)), (255, 255, 255)),
        (file(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"), (0, 255, 255)),
        (file(Image.new("RGBA", (3, 3), (1, 2, 3, 0))), (1, 2, 3)),
        (file(Image.new("LA", (3, 3), (9, 0))), (9, 9, 9)),
        (file(Image.new("RGB", (3, 3), (1, 2, 3)).quantize(4)), (1, 2, 3)),
        (file(Image.new("RGB", (3, 3), (1, 2, 3)).quantize(4), transparency=b"\0\x80"), (1, 2, 3)),
        (file(grey16().crop((1, 0, 2, 1))), (128, 128, 128)),
        (file(grey16().crop((2, 0, 3, 1))), (255, 255, 255)),
        (file(Image.new("RGB", (3, 3), (1, 2, 3)), "BMP"), (1, 2, 3)),
    ],
)
def test_every_kind_of_image_becomes_rgb(data: bytes, expected: tuple[int, ...]) -> None:
    found = decode.picture(data)
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found)[0, 0].astype(int) - expected).max() <= 2


def huge(width: int, height: int) -> bytes:
    """Write a PNG that says it is huge."""
    data = bytearray(file(Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no image", "is not a readable image"),
        (file(Image.new("RGB", (3, 3)), "GIF"), "is not a readable image"),
        (picture(0, "JPEG")[:600], "cannot be decoded: Truncated"),
        (picture(0)[:-900], "cannot be decoded"),
        (huge(100_000, 100_000), "is too large for an image"),
        (huge(1_000, 1_000_000), "is too large for an image"),
        (huge(1, 200), "is 1x200, more than 100 times"),
    ],
)
def test_what_is_no_image_is_said(data: bytes, says: str) -> None:
    with pytest.raises(Damaged, match=says):
        decode.picture(data)


def test_a_file_that_is_gone_empty_or_shorter_is_said_by_name(tmp_path: Path) -> None:
    good, short, empty = (tmp_path / name for name in ("good.png", "short.png", "empty.png"))
    good.write_bytes(picture(1))
    short.write_bytes(picture(1)[:100])
    empty.touch()
    places = [Place(str(good), 0, good.stat().st_size), Place(str(tmp_path / "gone.png"), 0, 5)]
    places += [Place(str(short), 0, 900), Place(str(empty), 0, 0), Place(str(good), 0, 1 << 40)]
    x, faults = READER[Request(places, None)]
    assert [fault.position for fault in faults] == [1, 2, 3, 4]
    assert (x[0].any(), x[1:].any()) == (True, False)
    for fault, says in zip(
        faults, ("No such file", "has 100 bytes, and had 900", "is empty", "more than"), strict=True
    ):
        assert says in fault.sentence
        assert fault.sentence.startswith(places[fault.position].path)


def test_a_member_of_a_shard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTRUN_CACHE", str(tmp_path / "cache"))
    files = of_two_classes(4)
    files[0] = "0", b"no image"
    found = listing.layout(as_tar(tmp_path / "set", {"train": files}), ("train",))
    assert found is not None
    place = found.read(found.classes).place(0)
    assert "set-train-000000.tar: 0000.png is not a readable image" in READER[Request([place], None)][1][0].sentence


def test_augmentation_is_torchvisions_and_depends_on_its_seed_alone(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    path = tmp_path / "a.png"
    path.write_bytes(picture(5))
    place = Place(str(path), 0, path.stat().st_size)
    torch.manual_seed(11)
    before = torch.default_generator.get_state()
    x, _ = READER[Request([place] * 3, [5, 6, 5])]
    assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(x[0], x[2])
    assert not torch.equal(x[0], x[1])
    torch.manual_seed(6)
    image = Image.open(path).convert("RGB")
    expected = v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(), v2.PILToTensor()])(image)
    assert torch.equal(x[1], expected)
    plain, _ = READER[Request([place], None)]
    assert torch.equal(plain[0], v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])(image))
