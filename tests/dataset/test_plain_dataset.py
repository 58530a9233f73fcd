import random

import numpy as np
import pytest
import torch
from PIL import Image

from dstrun.dataset.plain import Plain
from dstrun.system.trouble import ConfigError


class Kept:
    """Pairs of an image and a label, in a list."""

    pairs: list = []

    def __init__(self, train):
        self.own = self.pairs if train else self.pairs[:2]

    def __len__(self):
        return len(self.own)

    def __getitem__(self, index):
        image, label = self.own[index]
        return (image() if callable(image) else image), label


class Bare(Kept):
    """The same, of things that may be no pairs."""

    def __getitem__(self, index):
        found = self.own[index]
        return super().__getitem__(index) if isinstance(found, tuple) else found


def twice(image, by=2):
    """Keep shape and type, and draw from every generator."""
    return image * by + int(torch.randint(9, ())) + random.randrange(9) + np.random.randint(9)


def smaller(image):
    return image[:, 1:]


def option(pairs, image=(1, 2, 2), classes=3, name="Kept", **settings):
    Kept.pairs = pairs
    return Plain(part={"_target_": f"{__name__}.{name}"}, image=image, classes=classes, **settings)


def gray(value):
    return torch.full((1, 2, 2), value, dtype=torch.uint8)


PAIRS = [(gray(10 * i), i % 3) for i in range(6)]


def test_images_of_every_kind_are_read_alike():
    color = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    last = np.moveaxis(color, 0, 2)
    kinds = [color, last, torch.from_numpy(color), Image.fromarray(last)]
    read = option([(kind, i % 3) for i, kind in enumerate(kinds)], (3, 2, 2)).load()
    assert read.train_x.dtype == np.uint8
    assert all(np.array_equal(image, color) for image in read.train_x)
    assert read.train_y.tolist() == [0, 1, 2, 0]
    flat = option([(np.full((2, 2), 7, np.uint8), torch.tensor(1)), (Image.new("L", (2, 2), 7), np.int64(1))]).load()
    assert (flat.train_x == 7).all()


def test_floating_point_is_kept_as_it_is():
    values = torch.linspace(-0.5, 1.5, 4).view(1, 2, 2)
    made = option([(values, 0)] * 4, mean=[0.0], std=[1.0])
    loader = made.open("cpu", 2, 0)
    torch.testing.assert_close(loader.batch(0)[0], values.expand(2, 1, 2, 2))
    for _ in range(2):  # evaluated again they are the same
        x, _ = next(loader.eval_batches(2))
        torch.testing.assert_close(x, values.expand(2, 1, 2, 2))
    (mean,), (std,) = option([(values, 0)] * 4).load().statistics
    assert (mean, std) == pytest.approx((0.5, values.numpy().std()))


WRONG = {
    "image 0 of tests.Kept has shape (3, 3)": [(np.zeros((3, 3), np.uint8), 0)],
    "holds int64: it must be uint8": [(torch.zeros(1, 2, 2, dtype=torch.int64), 0)],
    "has label 3: it must be a whole number in [0, 2]": [(gray(0), 0), (gray(1), 3)],
    "has label 'cat'": [(gray(0), "cat")],
    "is a Tensor: it must be a pair": [gray(0)],
    "has images of uint8 and of float32": [(gray(0), 0), (torch.zeros(1, 2, 2), 0)],
    "changes when it is read again": [(lambda: torch.rand(1, 2, 2), 0)] * 4,
    "cannot be read: ZeroDivisionError": [(lambda: 1 // 0, 0)],
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_image_or_label_is_refused(said):
    with pytest.raises(ConfigError) as error:
        option(WRONG[said], name="Bare").load()
    assert said.replace("tests.Kept", f"{__name__}.Bare") in str(error.value)


def test_an_augmentation_draws_for_each_image_of_each_step_and_moves_no_other_draw():
    made = option(PAIRS, augment={"_target_": f"{__name__}.twice", "by": 3}, mean=[0.0], std=[1.0])
    loader, again = made.open("cpu", 3, 0), made.open("cpu", 3, 0)
    before = torch.rand(1, generator=torch.Generator().manual_seed(0)), torch.get_rng_state(), random.getstate()
    batches = [loader.batch(step)[0] for step in range(4)]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    torch.testing.assert_close(again.batch(3)[0], batches[3])  # from any step on, as a resumed run goes on
    torch.testing.assert_close(again.batch(3, slice(1, 2))[0], batches[3][1:2])  # and in passes
    assert not torch.equal(batches[0].sort(0).values, batches[2].sort(0).values)
    x, _ = next(loader.eval_batches(2))
    torch.testing.assert_close(x * 255, torch.stack([gray(0), gray(10)]).float())  # evaluated as they are


def test_an_augmentation_that_changes_the_shape_is_refused():
    made = option(PAIRS, augment={"_target_": f"{__name__}.smaller"})
    with pytest.raises(
        ConfigError, match=r"smaller turns a tensor \(1, 2, 2\) torch.uint8 into \(1, 1, 2\) torch.uint8"
    ):
        made.open("cpu", 3, 0)
    with pytest.raises(ConfigError, match=r"smaller cannot be called: TypeError: .*unexpected keyword argument 'by'"):
        option(PAIRS, augment={"_target_": f"{__name__}.smaller", "by": 1}).open("cpu", 3, 0)
    with pytest.raises(ConfigError, match=r"dataset.augment=3 must hold settings"):
        option(PAIRS, augment=3)


def test_splits_are_told_apart_by_what_the_class_takes():
    fake = {"_target_": "torchvision.datasets.FakeData", "image_size": [3, 8, 8], "num_classes": 4}
    made = Plain(part=fake, image=(3, 8, 8), classes=4, train={"size": 5}, test={"size": 3, "random_offset": 9})
    assert (made.train_count, made.test_count, made.train_images) == (5, 3, 5)
    assert made.load().train_x.shape == (5, 3, 8, 8)
    with pytest.raises(ConfigError, match="are the same"):
        Plain(part=fake, image=(3, 8, 8), classes=4, train={"size": 5}, test={"size": 5})
    assert (option(PAIRS).train_count, option(PAIRS).test_count) == (6, 2)  # train=True and train=False
    assert option(PAIRS, limit=4).train_images == 4
