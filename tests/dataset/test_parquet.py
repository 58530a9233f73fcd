from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dstrun.dataset import parquet
from dstrun.system.trouble import ConfigError

Shard = Callable[..., Path]
RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = [n % 10 for n in range(20)]


def read(*files: Path, count: int = 20, labels: tuple[str, ...] = ("label",)) -> tuple[np.ndarray, np.ndarray]:
    return parquet.read(files, count, (3, 32, 32), 10, labels)


@pytest.mark.parametrize("column", ["img", "image"])
def test_png_is_decoded_exactly_in_the_order_of_the_shards(tmp_path: Path, shard: Shard, column: str) -> None:
    one = shard(tmp_path / "train-00000-of-00002.parquet", PIXELS[:11], LABELS[:11], image=column)
    two = shard(tmp_path / "train-00001-of-00002.parquet", PIXELS[11:], LABELS[11:], image=column)
    x, y = read(*parquet.shards(tmp_path, "train"))
    assert parquet.shards(tmp_path, "train") == [one, two]
    assert np.array_equal(x, PIXELS.transpose(0, 3, 1, 2))
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert y.tolist() == LABELS


def test_jpeg_is_decoded(tmp_path: Path, shard: Shard) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (20, 32, 32, 3))
    x, _ = read(shard(tmp_path / "train-0.parquet", smooth, LABELS, format="JPEG"))
    assert np.abs(x.astype(int) - smooth.transpose(0, 3, 1, 2)).max() <= 4


def test_the_preferred_label_column_wins(tmp_path: Path, shard: Shard) -> None:
    zeros = pa.array([0] * 20)
    path = shard(tmp_path / "train-0.parquet", PIXELS, LABELS, label="fine_label", more={"coarse_label": zeros})
    assert read(path, labels=("fine_label", "label"))[1].tolist() == LABELS


def test_a_missing_shard_is_named(tmp_path: Path, shard: Shard) -> None:
    assert parquet.shards(tmp_path, "train") == []
    for number in (0, 2):
        shard(tmp_path / f"train-0000{number}-of-00003.parquet", PIXELS[:2], LABELS[:2])
    with pytest.raises(ConfigError) as error:
        parquet.shards(tmp_path, "train")
    assert str(error.value) == (
        f"{tmp_path}/train-00001-of-00003.parquet is missing: train-00000-of-00003.parquet says that there are 3"
    )


def test_shards_with_a_digest_in_their_names_are_complete(tmp_path: Path, shard: Shard) -> None:
    path = shard(tmp_path / "train-00000-of-00001-0123456789abcdef.parquet", PIXELS, LABELS)
    assert parquet.shards(tmp_path, "train") == [path]


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -100])
def test_a_truncated_shard_is_named(tmp_path: Path, shard: Shard, keep: int) -> None:
    path = shard(tmp_path / "train-0.parquet", PIXELS, LABELS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=f"^{path} cannot be read as Parquet, fetch it again: "):
        read(path)


def test_a_shard_damaged_inside_is_named(tmp_path: Path, shard: Shard) -> None:
    path = shard(tmp_path / "train-0.parquet", PIXELS, LABELS)
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 2000)
    with pytest.raises(ConfigError, match=f"^{path} cannot be read as Parquet, fetch it again: "):
        read(path)


def replaced(position: int, image: np.ndarray | bytes | None) -> list[np.ndarray | bytes | None]:
    return [image if n == position else pixels for n, pixels in enumerate(PIXELS)]


def file_of(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


GOOD = Image.fromarray(PIXELS[0])


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((28, 32, 3), np.uint8), "is 32x28 RGB, not 32x32 RGB"),
        (np.zeros((32, 33, 3), np.uint8), "is 33x32 RGB, not 32x32 RGB"),
        (np.zeros((32, 32), np.uint8), "is 32x32 L, not 32x32 RGB"),
        (np.zeros((32, 32, 4), np.uint8), "is 32x32 RGBA, not 32x32 RGB"),
        (b"these are no pixels", "cannot be decoded as PNG or JPEG"),
        (file_of(GOOD, "PNG")[:-1000], "cannot be decoded as PNG or JPEG"),
        (file_of(GOOD, "JPEG")[:-300], "cannot be decoded as PNG or JPEG"),
        (file_of(GOOD, "BMP"), "cannot be decoded as PNG or JPEG"),
        (b"", "has no bytes"),
        (None, "has no bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_image_is_named(tmp_path: Path, shard: Shard, image: np.ndarray | bytes | None, says: str) -> None:
    first = shard(tmp_path / "train-0.parquet", PIXELS, LABELS)
    second = shard(tmp_path / "train-1.parquet", replaced(9, image), LABELS)
    with pytest.raises(ConfigError) as error:
        read(first, second, count=40)
    assert str(error.value) == f"{second}: image 9 {says}"


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_out_of_range_is_named(tmp_path: Path, shard: Shard, label: int | None) -> None:
    path = shard(tmp_path / "train-0.parquet", PIXELS, [*LABELS[:19], label])
    with pytest.raises(ConfigError) as error:
        read(path)
    assert str(error.value) == f"{path}: image 19 has the label {label}, which must be in [0, 9]"


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, shard: Shard) -> None:
    path = shard(tmp_path / "train-0.parquet", PIXELS, LABELS, label="coarse_label")
    with pytest.raises(ConfigError) as error:
        read(path, labels=("fine_label", "label"))
    assert str(error.value) == f"{path} has no label column fine_label or label: its columns are img, coarse_label"
    path = shard(tmp_path / "train-0.parquet", PIXELS, LABELS, image="picture")
    with pytest.raises(ConfigError, match="has no image column img or image: its columns are picture, label"):
        read(path)


def test_columns_of_another_type_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    images = pa.array([{"bytes": b"", "path": ""}])
    for table, says in (
        ({"img": ["a"], "label": [1]}, "the column img is string, not a struct of bytes and path"),
        ({"img": images, "label": ["cat"]}, "the column label is string, not a whole number"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(ConfigError) as error:
            read(path, count=1)
        assert str(error.value) == f"{path}: {says}"


def test_a_wrong_number_of_images_is_said_for_each_shard(tmp_path: Path, shard: Shard) -> None:
    one = shard(tmp_path / "train-0.parquet", PIXELS[:7], LABELS[:7])
    two = shard(tmp_path / "train-1.parquet", PIXELS[7:], LABELS[7:])
    for count in (19, 21):
        with pytest.raises(ConfigError) as error:
            read(one, two, count=count)
        assert str(error.value) == f"{one} has 7, {two} has 13: 20 images where there must be {count}"


def test_an_image_file_far_larger_than_its_pixels_is_refused_before_it_is_copied(shard, tmp_path) -> None:
    path = shard(tmp_path / "train-0.parquet", [bytes(1 << 20)] * 7, [0] * 7)
    assert path.stat().st_size < 100_000
    with pytest.raises(ConfigError, match="an image is a file of 1,048,576 bytes, more than"):
        parquet.read([path], 7, (3, 4, 4), 10, ("label",))


def test_a_row_group_that_says_too_much_is_refused_unread(shard, tmp_path, monkeypatch) -> None:
    path = shard(tmp_path / "train-0.parquet", [bytes(100)] * 7, [0] * 7)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100)
    with pytest.raises(ConfigError, match="row group 0 claims to have"):
        parquet.read([path], 7, (3, 4, 4), 10, ("label",))
