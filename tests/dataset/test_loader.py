from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chisquare

from dstrun.dataset.digits import Digits
from dstrun.dataset.images import Images
from dstrun.dataset.loader import PAD, Resident, crop
from dstrun.system.stream import stream
from dstrun.system.trouble import ConfigError

COUNT = 250
# Normalised values are the pixels: channel 0 holds the row, 1 the column (both from 1, so that padding shows), 2 the
# number of the image.
PLAIN: Any = SimpleNamespace(mean=(0.0,) * 3, std=(1 / 255,) * 3, flip=True)


def numbered(count: int = COUNT) -> Images:
    x = np.empty((count, 3, 32, 32), np.uint8)
    x[:, 0] = np.arange(1, 33)[:, None]
    x[:, 1] = np.arange(1, 33)
    x[:, 2] = np.arange(1, count + 1)[:, None, None]
    return Images(x, np.arange(count), x[::-1][:30].copy(), np.arange(count)[::-1][:30].copy(), "test", "0")


def resident(batch_size: int = 32, seed: int = 0, augment: bool = True, option: Any = PLAIN) -> Resident:
    return Resident(numbered(), option, "cpu", batch_size, seed, augment)


def offsets(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read row offset, column offset and mirroring off the middle of augmented images."""
    row = x[:, 0, 16, 16] - 17 + PAD
    mirror = x[:, 1, 16, 17] < x[:, 1, 16, 16]
    column = torch.where(mirror, x[:, 1, 16, 15], x[:, 1, 16, 16]) - 17 + PAD
    return row.int().numpy(), column.int().numpy(), mirror.numpy()


def test_crop_is_pad_cut_and_flip() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (64, 3, 12, 7), dtype=torch.uint8, generator=generator)
    offset = torch.randint(2 * PAD + 1, (2, 64), generator=generator)
    mirror = torch.randint(2, (64,), generator=generator).bool()
    offset[:, 0], offset[:, 1] = 0, 2 * PAD
    padded = torch.nn.functional.pad(x, (PAD,) * 4)
    for n, one in enumerate(crop(x, offset, mirror)):
        row, column = offset[:, n].tolist()
        expected = padded[n, :, row : row + 12, column : column + 7]
        assert torch.equal(one, expected.flip(2) if mirror[n] else expected)


def test_offsets_are_uniform_and_half_of_the_images_are_mirrored() -> None:
    loader = resident(batch_size=COUNT)
    drawn = [offsets(loader.batch(step)[0]) for step in range(100)]
    row, column, mirror = (np.concatenate(part) for part in zip(*drawn, strict=True))
    table = np.zeros((9, 9, 2))
    np.add.at(table, (row, column, mirror.astype(int)), 1)
    assert chisquare(table.ravel()).pvalue > 1e-3
    assert abs(mirror.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(mirror))


def test_padding_is_black_before_normalisation() -> None:
    option: Any = SimpleNamespace(mean=(0.5, 0.25, 0.0), std=(0.25, 0.5, 1.0), flip=True)
    for step in range(5):
        x, _ = resident(option=option).batch(step)
        black = (resident().batch(step)[0] == 0).all(1)
        assert black.any()
        assert torch.allclose(x.transpose(0, 1)[:, black], torch.tensor([[-2.0], [-0.5], [0.0]]))


def test_nothing_is_mirrored_where_that_changes_the_class() -> None:
    option: Any = SimpleNamespace(mean=PLAIN.mean, std=PLAIN.std, flip=False)
    row, _, mirror = offsets(resident(batch_size=COUNT, option=option).batch(0)[0])
    assert not mirror.any()
    assert len(set(row)) == 9


@pytest.mark.parametrize("augment", [True, False])
def test_an_epoch_visits_every_image_at_most_once_and_keeps_its_label(augment: bool) -> None:
    loader = resident(augment=augment)
    assert loader.steps_per_epoch == 7
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(epoch * 7, epoch * 7 + 7):
            x, y = loader.batch(step)
            assert (x.shape, x.dtype, y.shape, y.dtype) == ((32, 3, 32, 32), torch.float32, (32,), torch.int64)
            assert torch.equal(x[:, 2, 16, 16].round().long() - 1, y)
            seen += y.tolist()
        assert len(set(seen)) == len(seen) == 224
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_without_augmentation_images_are_as_they_are() -> None:
    x, y = resident(augment=False).batch(3)
    assert torch.allclose(x, torch.from_numpy(numbered().train_x)[y].float())


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    straight = resident()
    batches = [straight.batch(step) for step in range(20)]
    for step in (19, 3, 8, 7, 3):
        torch.manual_seed(step)
        for found, expected in zip(resident().batch(step), batches[step], strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(straight.batch(step)[0], batches[step][0])
    assert not torch.equal(resident(seed=1).batch(3)[1], batches[3][1])


def test_the_order_does_not_depend_on_augmentation() -> None:
    assert torch.equal(resident(augment=True).batch(5)[1], resident(augment=False).batch(5)[1])


def test_a_fresh_sample_is_drawn_without_replacement_and_apart_from_the_batch() -> None:
    loader = resident()
    before = loader.batch(4)
    x, y = loader.sample(4, 100)
    assert x.shape == (100, 3, 32, 32)
    assert len(set(y.tolist())) == 100
    assert torch.equal(x[:, 2, 16, 16].round().long() - 1, y)
    assert len(set(offsets(x)[0])) == 9
    assert torch.equal(resident().sample(4, 100)[0], x)
    assert not torch.equal(loader.sample(5, 100)[1], y)
    assert torch.equal(loader.batch(4)[0], before[0])
    assert sorted(loader.sample(4, 1000)[1].tolist()) == list(range(COUNT))


def test_fresh_samples_are_uniform() -> None:
    loader = resident(augment=False)
    drawn = torch.cat([loader.sample(step, 50)[1] for step in range(200)])
    # Drawing 50 of 250 without replacement, counts vary 1 - 50 / 250 times as much as with.
    statistic = chisquare(np.bincount(drawn, minlength=COUNT)).statistic / 0.8
    assert 1e-3 < chi2.sf(statistic, COUNT - 1) < 1 - 1e-3


def test_evaluation_goes_over_all_images_in_order() -> None:
    loader = resident()
    for batch_size, sizes in ((8, [8, 8, 8, 6]), (30, [30]), (100, [30])):
        batches = list(loader.eval_batches(batch_size))
        assert [len(y) for _, y in batches] == sizes
        assert torch.equal(torch.cat([y for _, y in batches]), torch.from_numpy(numbered().eval_y))
        assert torch.allclose(torch.cat([x for x, _ in batches]), torch.from_numpy(numbered().eval_x).float())


def test_digits_are_normalised_and_left_alone() -> None:
    option = Digits()
    images = option.load()
    before = images.train_x.copy()
    loader = Resident(images, option, "cpu", option.train_count, 0, option.augment)
    x, y = loader.batch(0)
    assert x.shape == (1437, 1, 8, 8)
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3
    assert torch.equal(y.sort().values, torch.from_numpy(images.train_y).sort().values)
    assert np.array_equal(images.train_x, before)


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    assert resident(batch_size=COUNT).steps_per_epoch == 1
    with pytest.raises(ConfigError) as error:
        resident(batch_size=COUNT + 1)
    assert str(error.value) == "batch_size=251 must be at most 250, the number of training images"


@pytest.mark.gpu
def test_every_device_sees_the_same_images() -> None:
    here, there = resident(), Resident(numbered(), PLAIN, "cuda", 32, 0, True)
    for expected, found in ((here.batch(9), there.batch(9)), (here.sample(9, 40), there.sample(9, 40))):
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other.cpu(), one)


def test_streams_are_distinct_and_the_same_for_ever() -> None:
    assert stream(0, "order", 0) == 4819849257279361181
    seeds = {stream(seed, name, step) for seed in range(20) for name in ("order", "augment") for step in range(500)}
    assert len(seeds) == 20_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({seed % 2**32 for seed in seeds}) > 19_990
    assert stream(1, "a", "b") != stream(1, "ab")
    assert stream(1, 1) != stream(1, "1")
