"""Digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn; works offline, for trying things out."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from dstrun.config.option import option
from dstrun.dataset.cache import cached
from dstrun.dataset.images import Dataset, Images
from dstrun.system.lazy import np

SOURCE = "cc60545fa7fa1a8c9f1ff3640a09ecf808f2778025053c29f35219dead5461ca"
"""SHA-256 of images and labels."""


@option
class Digits(Dataset):
    """Handwritten digits (Alpaydin and Kaynak, 1998): scikit-learn's copy, in its order.

    The first 1,437 images are for training and the last 360 for the test. Values 0..16 are scaled to 0..255, rounded
    down. Mean and standard deviation are those of the training images.
    """

    image: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    classes: ClassVar[int] = 10
    train_count: ClassVar[int] = 1437
    test_count: ClassVar[int] = 360
    mean: ClassVar[tuple[float, ...]] = (0.3046,)
    std: ClassVar[tuple[float, ...]] = (0.3754,)
    flip: ClassVar[bool] = False
    augment: ClassVar[bool] = False

    def found(self) -> str | None:
        """Return the checksum that images and labels must have."""
        return SOURCE

    def load(self, cache: Path | None = None) -> Images:
        """Load the images, from the cache where they are: importing scikit-learn takes longer than a short run.

        Args:
            cache: the folder for decoded images; see ``dstrun.dataset.cache.cached``.
        """
        return self.choose(cached("digits", SOURCE, self.shapes(), self._decode, cache), SOURCE)

    def _decode(self) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        x = (np.asarray(pixels, np.int64) * 255 // 16).astype(np.uint8).reshape(-1, *self.image)
        y = np.asarray(labels, np.int64)
        if sha256(x.tobytes() + y.tobytes()).hexdigest() != SOURCE:
            raise RuntimeError("scikit-learn's digits differ from those that this version of dstrun expects")
        n = self.train_count
        return {"train_x": x[:n], "train_y": y[:n], "test_x": x[n:], "test_y": y[n:]}
