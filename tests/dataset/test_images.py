from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrun.dataset.digits import Digits
from dstrun.system.trouble import ConfigError

COUNT = Digits.train_count


def numbered() -> dict[str, np.ndarray]:
    train, test = np.arange(COUNT), np.arange(COUNT, COUNT + Digits.test_count)
    return {"train_x": train[:, None], "train_y": train, "test_x": test[:, None], "test_y": test}


@given(validation=st.integers(0, COUNT - 1), data=st.data())
def test_every_training_image_is_used_once_and_counted_without_loading(validation: int, data: st.DataObject) -> None:
    limit = data.draw(st.none() | st.integers(1, COUNT - validation))
    option = Digits(limit=limit, validation=validation)
    images = option.choose(numbered(), "0")
    assert len(images.train_y) == option.train_images == (limit or COUNT - validation)
    assert np.array_equal(images.train_x[:, 0], images.train_y)
    assert np.array_equal(images.eval_x[:, 0], images.eval_y)
    assert (np.diff(images.train_y) > 0).all()
    if validation:
        assert images.split == "validation"
        assert len(images.eval_y) == validation
        assert images.eval_y.max() < COUNT
        assert not np.intersect1d(images.train_y, images.eval_y).size
    else:
        assert images.split == "test"
        assert images.eval_y.tolist() == list(range(COUNT, COUNT + Digits.test_count))


def test_limit_keeps_the_first_of_what_validation_leaves() -> None:
    whole = Digits(validation=500).choose(numbered(), "0")
    limited = Digits(validation=500, limit=100).choose(numbered(), "0")
    assert np.array_equal(limited.train_y, whole.train_y[:100])
    assert np.array_equal(limited.eval_y, whole.eval_y)


def test_validation_images_are_the_same_for_ever() -> None:
    images = Digits(validation=5).choose(numbered(), "0")
    assert images.eval_y.tolist() == [57, 161, 496, 733, 1279]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"validation": 1437}, "dataset.validation=1437 must be below 1437, the number of training images"),
        ({"validation": -1}, "dataset.validation=-1 must be at least 0"),
        ({"limit": 0}, "dataset.limit=0 must be at least 1"),
        ({"limit": 1438}, "dataset.limit=1438 must be at most 1437, the number of training images"),
        (
            {"limit": 1000, "validation": 500},
            "dataset.limit=1000 must be at most 937, the number of training images that dataset.validation=500 leaves",
        ),
        ({"limit": 1.5}, "dataset.limit=1.5 must be a whole number"),
    ],
)
def test_limit_and_validation_out_of_range(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Digits(**settings)
    assert str(error.value) == sentence
