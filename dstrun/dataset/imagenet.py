"""ImageNet: its shapes and counts, for ``dstrun plan``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dstrun.dataset.images import Dataset, Images
from dstrun.option import ConfigError, option


@option
class ImageNet(Dataset):
    """ImageNet, ILSVRC 2012 (Russakovsky et al., 2015), 224x224 crops; its 50,000 validation images are the test.

    It can be planned but not trained yet.
    """

    image: ClassVar[tuple[int, int, int]] = (3, 224, 224)
    classes: ClassVar[int] = 1000
    train_count: ClassVar[int] = 1_281_167
    test_count: ClassVar[int] = 50_000
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    flip: ClassVar[bool] = True
    augment: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse as ``load`` does.

        Raises:
            ConfigError: always.
        """
        self.load()

    def load(self, cache: Path | None = None) -> Images:
        """Refuse: only the shapes are here.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("dataset=imagenet can be planned but not trained yet: its data pipeline is not built")
