from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dstrun.dataset.digits import Digits


def test_digits_are_those_of_scikit_learn() -> None:
    option, (pixels, labels) = Digits(), load_digits(return_X_y=True)
    images = option.load()
    assert images.train_x.shape == (option.train_count, *option.image)
    assert images.eval_x.shape == (option.test_count, *option.image)
    assert images.train_x.dtype == images.eval_x.dtype == np.uint8
    assert images.train_y.dtype == images.eval_y.dtype == np.int64
    whole = np.concatenate([images.train_x, images.eval_x])[:, 0]
    assert np.array_equal(np.ceil(whole / 255 * 16).reshape(-1, 64), pixels)
    assert np.array_equal(np.concatenate([images.train_y, images.eval_y]), labels)
    assert whole.max() == 255
    assert images.split == "test"
    assert images.source == option.load().source
    assert len(images.source) == 64


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    x = Digits().load().train_x / 255
    assert x.mean() == pytest.approx(Digits.mean[0], abs=5e-5)
    assert x.std() == pytest.approx(Digits.std[0], abs=5e-5)


def test_every_class_is_in_every_split() -> None:
    images = Digits(validation=300).load()
    assert np.bincount(images.train_y, minlength=10).min() > 50
    assert np.bincount(images.eval_y, minlength=10).min() > 10
