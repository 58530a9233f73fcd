"""What data sets of image files share: found in a folder, counted without decoding, streamed or decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from dstrun.config.option import AtLeast, OneOf, nearest, option
from dstrun.dataset.cache import Shapes, cached
from dstrun.dataset.images import Dataset, Images, check_counts, permutation
from dstrun.system.lazy import np
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.dataset.listing import Layout, Listing
    from dstrun.dataset.loader import Loader
    from dstrun.dataset.streaming import Streaming

RESIDENT_BYTES = 2 << 30
"""Of decoded images that a run may keep in memory; where there are more, they are decoded again for every batch."""
SAMPLED = 4096
"""Images over which mean and standard deviation are taken where none are given."""


class Parts(NamedTuple):
    """The images of a run, by place: to train on, to evaluate on, what these are, and the checksum of all listed."""

    train: Listing
    held: Listing
    split: Literal["test", "validation"]
    source: str


@option
class Listed(Dataset):
    """A data set of images in files, in folders of their classes or in shards.

    ``class_subset`` keeps some classes, given by name or as a number of first classes; ``limit`` and ``validation`` are
    drawn from the remaining images, equally from all classes. ``damaged`` sets what happens if a training image cannot
    be decoded: stop, or skip it. ``workers`` is the number of decoding processes: ``None`` uses all CPUs, at most 16; 0
    decodes in the training process. It does not affect results.
    """

    size: ClassVar[int]
    root: str | None
    splits: ClassVar[tuple[str, ...]] = ("val", "validation", "test")
    flip: bool

    class_subset: tuple[str | int, ...] | Annotated[int, AtLeast(1)] | None = None
    damaged: Annotated[str, OneOf("refuse", "skip")] = "refuse"
    workers: Annotated[int, AtLeast(0)] | None = None

    def __post_init__(self) -> None:
        subset = self.class_subset
        if isinstance(subset, tuple) and len({str(name) for name in subset}) < max(1, len(subset)):
            raise ConfigError(f"dataset.class_subset={[*subset]} must name each class once, and one at least")

    @property
    def shorter(self) -> int:
        """Return to how many pixels the shorter side is resized before the middle is cut out."""
        raise NotImplementedError

    @property
    def augmentation(self) -> str:
        """Return how training images are augmented, as ``Streaming`` calls it."""
        raise NotImplementedError

    @cached_property
    def parts(self) -> Parts | None:
        """List the images of the run; ``None`` where there is no folder of them.

        Raises:
            ConfigError: what is there cannot be read, or is not what was asked for.
        """
        from dstrun.dataset.listing import chosen

        found = self._layouts()
        if found is None:
            return None
        first, second = found
        subset = self.class_subset
        asked = tuple(map(str, subset)) if isinstance(subset, tuple) else subset
        classes = chosen(first.classes, asked, "dataset.class_subset")
        train = first.read(classes)
        check_counts(len(train), self.limit, self.validation)
        if self.damaged == "refuse" and train.stray:
            raise ConfigError(
                f"{train.stray[0]} does not have the suffix of an image: remove it, or dataset.damaged=skip "
                "leaves it out"
            )
        order = permutation(len(train))
        kept = train.take(np.sort(order[self.validation :][: self.limit]))
        if self.validation:
            return Parts(kept, train.take(np.sort(order[: self.validation])), "validation", train.digest())
        if second is None:
            raise ConfigError(
                f"{self.place} has training images, but none in {' or '.join(self.splits)} to evaluate on: "
                "dataset.validation=N holds out N of them"
            )
        if odd := sorted({*second.classes} - {*first.classes}):
            raise ConfigError(f"{self.place}: {odd[0]} is a class of images to evaluate on, but not of training images")
        held = second.read([name for name in classes if name in second.classes]).of_classes(classes)
        if not len(held):
            raise ConfigError(f"{self.place} has no image of the classes chosen to evaluate on")
        return Parts(kept, held, "test", sha256(f"{train.digest()} {held.digest()}".encode()).hexdigest())

    @property
    def place(self) -> Path:
        """Return the folder that holds the data set, or should."""
        raise NotImplementedError

    @property
    def classes(self) -> int:
        """Count the classes."""
        return len(self._here().train.classes)

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the classes, as folders or shards have them."""
        return self._here().train.classes

    @property
    def train_count(self) -> int:
        """Count the training images of the run."""
        return len(self._here().train)

    @property
    def test_count(self) -> int:
        """Count the images to evaluate on."""
        return len(self._here().held)

    def _layouts(self) -> tuple[Layout, Layout | None] | None:
        """Find the training images, and those to evaluate on."""
        from dstrun.dataset.listing import layout

        first = layout(self.place, ("train",))
        return first and (first, layout(self.place, self.splits))

    def _here(self) -> Parts:
        if self.parts is None:
            siblings = [p.name for p in self.place.parent.iterdir()] if self.place.parent.is_dir() else []
            near = "" if self.place.is_dir() else nearest(self.place.name, siblings)
            raise ConfigError(
                f"{self.place} holds no images{near}: neither folders of classes in train/, nor train-*.parquet, nor "
                "*train*.tar; set dataset.root=DIR"
            )
        return self.parts

    def check(self) -> None:
        """Check that the images are listed; none is decoded.

        Raises:
            ConfigError: in the words of ``open``.
        """
        self._here()

    def found(self) -> str | None:
        """Return the checksum of names, sizes and labels where the images are."""
        try:
            return self.parts.source if self.parts else None
        except ConfigError:
            return None

    def checksum(self) -> str:
        """Return the checksum of names, sizes and labels."""
        return self._here().source

    @property
    def train_images(self) -> int:
        """Count the training images of the run."""
        return self.train_count

    def _streaming(
        self, device: Any, batch_size: int, seed: int, ranks: Ranks, channels_last: bool | None
    ) -> Streaming:
        from dstrun.dataset.decode import Reader
        from dstrun.dataset.streaming import Streaming, worker_count

        parts, augment = self._here(), self.augmentation
        reader = Reader(self.image[1], self.shorter, self.flip)
        return Streaming(
            parts.train,
            parts.held,
            self,
            reader,
            device,
            batch_size,
            seed,
            augment=augment,  # type: ignore[arg-type]
            skip=self.damaged == "skip",
            workers=worker_count(self.workers, ranks),
            split=parts.split,
            source=parts.source,
            ranks=ranks,
            channels_last=channels_last,
        )

    def open(
        self, device: Any, batch_size: int, seed: int, ranks: Ranks = ALONE, channels_last: bool | None = None
    ) -> Loader:
        """Return what gives a run its images: streamed, or decoded once where they are few and always look the same.

        Raises:
            ConfigError: they are not here; later, one is damaged.
        """
        from dstrun.dataset.loader import Resident

        loader = self._streaming(device, batch_size, seed, ranks, channels_last)
        found = self._statistics(loader)
        loader.set_statistics(*found)
        count = loader.train_count + len(loader.held)
        if self.augmentation == "resized_crop" or count * int(np.prod(self.image)) > RESIDENT_BYTES:
            return loader
        images = replace(self._decoded(loader), statistics=found)
        return Resident(images, self, device, batch_size, seed, loader.augment, ranks, channels_last)

    def _statistics(self, loader: Streaming) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean, self.std

    def _decoded(self, loader: Streaming) -> Images:
        """Decode all images of the run, or find them decoded."""
        parts = self._here()
        shapes: Shapes = {
            "train_x": ((len(parts.train), *self.image), np.uint8),
            "train_y": ((len(parts.train),), np.int64),
            "eval_x": ((len(parts.held), *self.image), np.uint8),
        }
        key = self._key(f"{self.damaged} {self.limit} {self.validation}")

        def decode() -> dict[str, np.ndarray]:
            train_x, train_y = loader.decoded()
            return {"train_x": train_x, "train_y": train_y, "eval_x": loader.decoded(held=True)[0]}

        made = cached("images", key, shapes, decode)
        return Images(
            made["train_x"], made["train_y"], made["eval_x"], parts.held.label, parts.split, parts.source
        )  # fmt: skip

    def _key(self, more: str) -> str:
        """Digest what decides how images look, besides the images themselves."""
        return sha256(f"{self._here().source} {self.image} {self.shorter} {more}".encode()).hexdigest()


def statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, in units of 0..1, to four digits as they are published.

    Args:
        x: (N, C, H, W) uint8.
    """
    means, deviations = [], []
    values = np.arange(256)
    for channel in range(x.shape[1]):
        counts = np.bincount(x[:, channel].reshape(-1), minlength=256)
        mean = (counts @ values) / counts.sum()
        means.append(round(mean / 255, 4))
        deviations.append(max(1e-4, round(float(np.sqrt((counts @ (values - mean) ** 2) / counts.sum())) / 255, 4)))
    return tuple(means), tuple(deviations)
