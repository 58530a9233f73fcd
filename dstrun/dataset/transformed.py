"""Images in memory, augmented one by one by a user's own transform. C channels, H height, W width."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dstrun.dataset.images import Images
from dstrun.dataset.loader import Resident
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.trouble import ConfigError


class Transformed(Resident):
    """Images on the device, augmented on the CPU: each image of each step draws from a seed of its own.

    Args:
        transform: called with a tensor (C, H, W) of the data set's type; returns another of the same shape and type.
        name: of it.
        images, option, device, batch_size, seed, ranks, channels_last: as for ``Resident``.
    """

    def __init__(
        self,
        transform: Callable[[Tensor], Tensor],
        name: str,
        images: Images,
        option: Any,
        device: torch.device | str,
        batch_size: int,
        seed: int,
        ranks: Ranks = ALONE,
        channels_last: bool | None = None,
    ) -> None:
        self.transform, self.name = transform, name
        super().__init__(images, option, device, batch_size, seed, True, ranks, channels_last)
        self._finish(self._train_x[:1], torch.zeros(1, 1, dtype=torch.int64))  # what is wrong with it is found here

    def _draw(self, count: int, draws: torch.Generator) -> Tensor:
        """Draw a seed for each image, (1, count) int64."""
        return torch.randint(1 << 32, (1, count), generator=draws)

    def _finish(self, x: Tensor, draws: Tensor | None) -> Tensor:
        if draws is not None:
            with _generators_kept():
                pairs = zip(x.cpu(), draws[0].tolist(), strict=True)
                x = torch.stack([self._augmented(image, seed) for image, seed in pairs]).to(self.device)
        return self._normalise(x)

    def _augmented(self, image: Tensor, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            found = self.transform(image)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"dataset.augment: {self.name} cannot be called: {type(error).__name__}: {said}"
            ) from error
        shape, kind = tuple(image.shape), image.dtype
        if not isinstance(found, Tensor) or tuple(found.shape) != shape or found.dtype != kind:
            given = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"dataset.augment: {self.name} turns a tensor {shape} {kind} into {given}: it must keep shape and type"
            )
        return found


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restore the states of the generators that a transform may draw from."""
    states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
