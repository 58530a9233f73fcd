"""Data sets that torchvision downloads, in the files that it puts there: digits, clothes, house numbers."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

from dstrun.config.option import OneOf, option
from dstrun.dataset.cache import Shapes, cached, checksum
from dstrun.dataset.images import Images, check_counts
from dstrun.dataset.listed import statistics
from dstrun.dataset.published import Arrays, Published, Source
from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError, why


class Known(NamedTuple):
    """What was published: shape, counts, and whether a mirrored image still shows its class."""

    image: tuple[int, int, int]
    train: int
    test: int
    flip: bool


SETS = {
    "MNIST": Known((1, 28, 28), 60_000, 10_000, False),
    "FashionMNIST": Known((1, 28, 28), 60_000, 10_000, True),
    "KMNIST": Known((1, 28, 28), 60_000, 10_000, False),
    "SVHN": Known((3, 32, 32), 73_257, 26_032, False),
}
IDX = {
    "train_x": "train-images-idx3",
    "train_y": "train-labels-idx1",
    "test_x": "t10k-images-idx3",
    "test_y": "t10k-labels-idx1",
}
"""How the files of MNIST and those made in its image begin."""
MAT = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
"""The files of SVHN's cropped digits."""


@option
class Torchvision(Published):
    """MNIST (LeCun et al., 1998), FashionMNIST (Xiao et al., 2017), KMNIST (Clanuwat et al., 2018), SVHN (2011).

    ``root`` is where torchvision puts them: it holds ``MNIST/raw`` and the like, whose files may be packed by gzip, or
    ``train_32x32.mat`` of SVHN; or a folder that holds the files themselves. Mean and standard deviation are those of
    all training images. ``augment`` shifts images by up to 4 pixels, and flips those of FashionMNIST.
    """

    name: Annotated[str, OneOf(*SETS)] = "MNIST"  # type: ignore[misc]
    augment: bool = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_counts(self.train_count, self.limit, self.validation)

    @property
    def image(self) -> tuple[int, int, int]:  # type: ignore[override]
        """Return channels, height and width."""
        return SETS[self.name].image

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Return 10: all have ten classes."""
        return 10

    @property
    def train_count(self) -> int:  # type: ignore[override]
        """Count the training images."""
        return SETS[self.name].train

    @property
    def test_count(self) -> int:  # type: ignore[override]
        """Count the test images."""
        return SETS[self.name].test

    @property
    def flip(self) -> bool:  # type: ignore[override]
        """Return whether a mirrored image still shows its class."""
        return SETS[self.name].flip

    def shapes(self) -> Shapes:
        """Return shapes and types of the decoded arrays; ``statistics`` are mean and standard deviation."""
        return {**super().shapes(), "statistics": ((2, self.image[0]), np.float64)}

    def load(self, cache: Path | None = None) -> Images:
        """Load the images, decoded once, with their statistics.

        Raises:
            ConfigError: as for ``Published``.
        """
        files, decode = self._source()
        source = checksum(files)

        def measured() -> Arrays:
            arrays = decode()
            return arrays | {"statistics": np.array(statistics(arrays["train_x"]))}

        arrays = cached(self.name, source, self.shapes(), measured, cache)
        mean, std = arrays["statistics"].tolist()
        return replace(self.choose(arrays, source), statistics=(tuple(mean), tuple(std)))

    def _here(self, root: Path) -> Source | None:
        places = (root / self.name / "raw", root / self.name, *([root] if self.root or self.name == "SVHN" else []))
        return next(filter(None, map(self._mat if self.name == "SVHN" else self._idx, places)), None)

    def _downloaded(self, root: Path) -> Source:
        place = root / self.name
        return self._mat_source(place) if self.name == "SVHN" else self._idx_source(place / "raw", "")

    def _fetch(self, folder: Path) -> str:
        import torchvision.datasets

        reader: Any = getattr(torchvision.datasets, self.name)
        if self.name == "SVHN":
            for split in MAT:
                reader(folder / self.name, split=split, download=True)
        else:
            reader(folder, download=True)
        return self.name

    def _lacks(self, root: Path) -> str:
        first = MAT["train"] if self.name == "SVHN" else f"{IDX['train_x']}-ubyte(.gz)"
        return f"neither it nor {root / self.name} has {first}"

    def _idx(self, place: Path) -> Source | None:
        """Find the files of MNIST's format; packed ones where no other is there."""
        for end in ("", ".gz"):
            there = [(place / f"{name}-ubyte{end}").is_file() for name in IDX.values()]
            if all(there):
                return self._idx_source(place, end)
            if there[0]:
                missing = list(IDX.values())[there.index(False)]
                raise ConfigError(f"{place / missing}-ubyte{end} is missing: fetch {self.name} again")
        return None

    def _idx_source(self, place: Path, end: str) -> Source:
        files = {key: place / f"{name}-ubyte{end}" for key, name in IDX.items()}

        def decode() -> Arrays:
            arrays = {}
            for key, path in files.items():
                count = self.train_count if key.startswith("train") else self.test_count
                if key.endswith("x"):
                    arrays[key] = read_idx(path, (count, *self.image[1:])).reshape(count, *self.image)
                else:
                    arrays[key] = read_idx(path, (count,)).astype(np.int64)
            return arrays

        return Source(list(files.values()), decode)

    def _mat(self, place: Path) -> Source | None:
        """Find the files of SVHN."""
        source = self._mat_source(place)
        there = [path.is_file() for path in source.files]
        if any(there) and not all(there):
            raise ConfigError(f"{source.files[there.index(False)]} is missing: fetch {self.name} again")
        return source if all(there) else None

    def _mat_source(self, place: Path) -> Source:
        def decode() -> Arrays:
            import torchvision.datasets

            arrays = {}
            for split, name in MAT.items():
                try:
                    found = torchvision.datasets.SVHN(place, split=split)  # which checks the MD5 before it reads
                except RuntimeError as error:
                    raise ConfigError(f"{place / name} is damaged: fetch {self.name} again") from error
                arrays |= {f"{split}_x": found.data, f"{split}_y": found.labels.astype(np.int64)}
            return arrays

        return Source([place / name for name in MAT.values()], decode)


def read_idx(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Read a file of MNIST's format: two zeros, the type, the number of dimensions, each of them, then the bytes.

    Args:
        path: of the file; packed by gzip if it ends in ``.gz``.
        shape: that it must have.

    Returns:
        uint8 of that shape.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    header = b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">i4").tobytes()
    size = math.prod(shape)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            opened: IO[bytes] = file  # type: ignore[assignment]
            good, found = opened.read(len(header)) == header, opened.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read, fetch it again: {why(error)}") from error
    if not good or len(found) != size:
        raise ConfigError(f"{path} is damaged: it must hold {'x'.join(map(str, shape))} bytes; fetch it again")
    return np.frombuffer(found, np.uint8).reshape(shape)
