"""Batches as a function of the step, so that resuming needs no state; here of images that are all on the device.

B batch, P processes, C channels, H height, W width, N training images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dstrun.dataset.images import Images
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.stream import generator
from dstrun.system.trouble import ConfigError

PAD = 4
"""Black pixels around an image before it is cropped."""


class Loader(ABC):
    """What training and methods ask for images.

    Every epoch goes over a new permutation of the training images and drops the last, partial batch. Order and
    augmentation are random numbers that depend on seed and step alone, drawn on the CPU: every device sees the same
    images, and P processes share the batch that one would have.

    Args:
        labels: of the training images and of those to evaluate on, (N,) and (M,) int64.
        option: its statistics, and whether images may be mirrored.
        device: where the batches appear.
        batch_size: B.
        seed: of the run.
        augment: whether to augment training images.
        ranks: the processes that share every batch; each gets B / P of it, and every P-th batch to evaluate on.
        channels_last: whether batches have their channels innermost in memory; on a CPU alone if ``None``.

    Attributes:
        split: what the evaluated images are.
        source: checksum of what the images come from.
        checksum: of the images themselves, or of what they come from where they are not all in memory.

    Raises:
        ConfigError: a batch holds more images than there are, or cannot be shared out equally; a label is no class.
    """

    split: str
    source: str
    checksum: str

    def __init__(
        self,
        labels: tuple[np.ndarray, np.ndarray],
        option: Any,
        device: torch.device | str,
        batch_size: int,
        seed: int,
        augment: bool,
        ranks: Ranks = ALONE,
        channels_last: bool | None = None,
    ) -> None:
        count = len(labels[0])
        if batch_size > count:
            raise ConfigError(f"batch_size={batch_size} must be at most {count}, the number of training images")
        if batch_size % ranks.size:
            raise ConfigError(f"batch_size={batch_size} must be a multiple of {ranks.size}, the number of processes")
        for part in filter(len, labels):
            low, high = int(part.min()), int(part.max())
            classes = getattr(option, "classes", high + 1)
            if low < 0 or high >= classes:
                wrong = low if low < 0 else high
                raise ConfigError(f"a label is {wrong}, and must be in [0, {classes - 1}]: the data is damaged")
        self.ranks, self.option = ranks, option
        self.device = torch.device(device)
        self.channels_last = self.device.type == "cpu" if channels_last is None else channels_last
        self.batch_size, self.seed, self.augment, self.flip = batch_size, seed, augment, option.flip
        self.steps_per_epoch = count // batch_size
        self.train_count = count
        self.labels, self.eval_labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in labels)

    def set_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Set what batches are normalised by, of each channel in units of 0..1."""
        self.statistics = mean, std
        self._mean, self._std = (
            torch.tensor(value, device=self.device).mul(255).view(-1, 1, 1) for value in (mean, std)
        )

    def facts(self) -> dict[str, Any]:
        """Return what a network has to know of the images: their shape, their classes, how they are normalised."""
        names, (mean, std) = getattr(self.option, "names", None), self.statistics
        return {
            "image": [*self.option.image],
            "classes": self.option.classes,
            "names": None if names is None else [*names],
            "mean": [*mean],
            "std": [*std],
        }

    @abstractmethod
    def begin(self, step: int) -> None:
        """Make ready for a step's batch, apart from the step, whose memory and time are measured."""

    @abstractmethod
    def batch(self, step: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the training batch of a step; of several processes each its share.

        Args:
            step: counted from the start of the run.
            part: which samples of the share here.

        Returns:
            (B / P, C, H, W) float32, normalised, and (B / P,) int64; or the part of them.
        """

    def sample(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Return fresh training images of a step, drawn without replacement and augmented as a batch's are.

        Args:
            step: counted from the start of the run.
            count: how many; all N if there are fewer.

        Returns:
            (count, C, H, W) float32, normalised, and (count,) int64.
        """
        draws = generator(self.seed, "fresh", step)
        chosen = torch.randperm(self.train_count, generator=draws)[:count]
        return self._training(chosen, self._draw(len(chosen), draws))

    def balanced(self, step: int, per_class: int) -> tuple[Tensor, Tensor]:
        """Return as many training images of every class, drawn without replacement for a step and augmented.

        Args:
            step: counted from the start of the run.
            per_class: how many of each class; all of a class that has fewer.

        Returns:
            (count, C, H, W) float32, normalised, and (count,) int64, class after class.
        """
        draws = generator(self.seed, "balanced", step)
        order = torch.randperm(self.train_count, generator=draws)
        order = order[self.labels[order].sort(stable=True).indices]
        ends = self.labels.bincount().cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        chosen = [order[a : min(a + per_class, b)] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        together = torch.cat(chosen)
        return self._training(together, self._draw(len(together), draws))

    @abstractmethod
    def eval_batches(self, batch_size: int, training: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the images to evaluate on, once and in order; the last batch may be smaller.

        Of several processes each gets its own batches, of ``batch_size`` / P.

        Args:
            batch_size: images in a batch.
            training: whether to go over the training images instead, which are not augmented.

        Yields:
            (B, C, H, W) float32, normalised, and (B,) int64.
        """

    def close(self) -> None:  # noqa: B027
        """Release what works for this loader; asked again, it starts anew."""

    @abstractmethod
    def _training(self, chosen: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training images (count,) int64 asked for, augmented as drawn."""

    def _permutation(self, epoch: int) -> Tensor:
        """Draw the order of an epoch, (N,) int64."""
        return torch.randperm(self.train_count, generator=generator(self.seed, "order", epoch))

    def _draws(self, step: int) -> Tensor:
        """Draw how to augment this process's part of a step's batch, (3, B / P)."""
        mine = self.ranks.local_slice(self.batch_size)
        return self._draw(self.batch_size, generator(self.seed, "augment", step))[:, mine]

    def _draw(self, count: int, draws: torch.Generator) -> Tensor:
        """Draw how to augment images: (3, count) uint8, row and column of the crop, and whether it is mirrored."""
        offset = torch.randint(2 * PAD + 1, (2, count), generator=draws)
        mirror = torch.randint(2, (count,), generator=draws) * self.flip
        return torch.cat([offset, mirror[None]]).to(torch.uint8)

    def _finish(self, x: Tensor, draws: Tensor | None) -> Tensor:
        """Pad, crop and mirror images (B, C, H, W) uint8 as drawn, and normalise them."""
        if self.augment and draws is not None:
            draws = draws.to(self.device, torch.int64)
            x = crop(x, draws[:2], draws[2].bool())
        return self._normalise(x)

    def _normalise(self, x: Tensor) -> Tensor:
        x = x.to(torch.float32, copy=True).sub_(self._mean).div_(self._std)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x


class Resident(Loader):
    """All images on the device.

    Augmentation pads with black pixels, crops at random and mirrors every other image, as is usual on CIFAR (Lee et
    al., 2015; He et al., 2016).

    Args:
        images: the data set.
        option: its statistics, unless the images bring their own, and whether they may be mirrored.
        device: where the images are kept.
        batch_size: B.
        seed: of the run.
        augment: whether to augment training images.
        ranks: the processes that share every batch.
        channels_last: as for ``Loader``.

    Raises:
        ConfigError: as for ``Loader``.
    """

    def __init__(
        self,
        images: Images,
        option: Any,
        device: torch.device | str,
        batch_size: int,
        seed: int,
        augment: bool,
        ranks: Ranks = ALONE,
        channels_last: bool | None = None,
    ) -> None:
        labels = images.train_y, images.eval_y
        super().__init__(labels, option, device, batch_size, seed, augment, ranks, channels_last)
        self.split, self.source, self.images = images.split, images.source, images
        self.set_statistics(*(images.statistics or (option.mean, option.std)))
        self._train_x, self._eval_x = (
            torch.from_numpy(array).to(self.device) for array in (images.train_x, images.eval_x)
        )
        self._train_y, self._eval_y = self.labels.to(self.device), self.eval_labels.to(self.device)
        self._epoch, self._order, self._crops = -1, torch.empty(0), torch.empty(0)

    @property
    def checksum(self) -> str:
        """Return the checksum of images and labels."""
        return self.images.checksum

    def begin(self, step: int) -> None:
        """Draw order and augmentation of a step's epoch, if they are not there yet.

        A copy to a GPU would make the step wait.
        """
        epoch = step // self.steps_per_epoch
        if epoch == self._epoch:
            return
        self._epoch, self._order = epoch, self._permutation(epoch).to(self.device)
        if self.augment:
            steps = range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch)
            self._crops = torch.stack([self._draws(s) for s in steps]).to(self.device)

    def batch(self, step: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Look a step's batch up."""
        self.begin(step)
        position = step % self.steps_per_epoch
        chosen = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        chosen = chosen[self.ranks.local_slice(self.batch_size)][part]
        return self._training(chosen, self._crops[position][:, part] if self.augment else None)

    def eval_batches(self, batch_size: int, training: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Look the images up."""
        rank, size = self.ranks.rank, self.ranks.size
        images = (self._train_x, self._train_y) if training else (self._eval_x, self._eval_y)
        xs, ys = (whole.split(batch_size // size)[rank::size] for whole in images)
        for x, y in zip(xs, ys, strict=True):
            yield self._normalise(x), y

    def _training(self, chosen: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        chosen = chosen.to(self.device)
        return self._finish(self._train_x[chosen], draws), self._train_y[chosen]


def crop(x: Tensor, offset: Tensor, mirror: Tensor) -> Tensor:
    """Pad images with zeros on every side, crop each at its offset, and mirror some.

    Args:
        x: (B, C, H, W).
        offset: (2, B) int64, row and column in [0, 2 PAD] where the crop starts in the padded image.
        mirror: (B,) bool, which crops to flip left to right.

    Returns:
        (B, C, H, W) of the same type.
    """
    count, channels, height, width = x.shape
    row = offset[0, :, None] + torch.arange(height, device=x.device)
    column = torch.arange(width, device=x.device).expand(count, width)
    column = offset[1, :, None] + torch.where(mirror[:, None], width - 1 - column, column)
    # One gather over flat pixels: 0.4 ms for 128 images of 32x32 on one core, a quarter of indexing with four tensors.
    flat = (row[:, :, None] * (width + 2 * PAD) + column[:, None, :]).view(count, 1, height * width)
    padded = pad(x, (PAD, PAD, PAD, PAD)).flatten(2)
    return padded.gather(2, flat.expand(count, channels, height * width)).view_as(x)
