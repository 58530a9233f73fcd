"""Images that stay on disk: decoded and augmented by worker processes, a little ahead of the step that trains on them.

B batch, P processes that share it, S size of an image, N training images.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dstrun.dataset.decode import WINDOW_BYTES, Fault, Reader, Request, start_worker
from dstrun.dataset.listing import Listing
from dstrun.dataset.loader import Loader
from dstrun.system.ranks import ALONE, Ranks
from dstrun.system.stream import generator, stream
from dstrun.system.trouble import ConfigError

log = logging.getLogger("dstrun")

CHUNK = 64
"""Images that a worker decodes at once; batches are put together of chunks, so that all workers are at the next one."""
AHEAD = 2
"""Chunks that every worker has ahead at least."""
TRIES = 20
"""How many images in a row, drawn in place of a damaged one, may be damaged too."""
STARTED_WITH = ["dstrun.dataset.decode", "torchvision.transforms.v2"]
"""What the process imports from which workers are forked; it has no threads, and none of our locks."""

Augment = Literal["resized_crop", "shift", "none"]


def worker_count(asked: int | None, ranks: Ranks = ALONE) -> int:
    """Return how many worker processes decode images: what was asked for, else this process's share of the CPUs."""
    if asked is not None:
        return asked
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, here // ranks.size))


def answers(
    reader: Reader, requests: Callable[[int], Iterable[Request]], workers: int, ahead: int = AHEAD, pin: bool = False
) -> Iterator[tuple[Tensor, list[Fault]]]:
    """Answer requests in their order, by worker processes that start at once; one that dies is replaced once a request.

    Args:
        reader: answers them.
        requests: gives them from a number on.
        workers: how many; 0 decodes here.
        ahead: requests that each worker has ahead.
        pin: whether answers lie in memory that a GPU can copy from by itself.

    Raises:
        ConfigError: workers die of the same request again.
    """
    done, died = 0, -1
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if workers and "forkserver" in methods:
        context.set_forkserver_preload(STARTED_WITH)
    more = {"prefetch_factor": ahead, "multiprocessing_context": context, "worker_init_fn": start_worker}
    while True:
        loader: Any = DataLoader(
            reader,  # type: ignore[arg-type]
            sampler=requests(done),
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
            generator=torch.Generator(),  # or it draws a number from the default one
            **(more if workers else {}),
        )
        try:
            for answer in loader:
                done += 1
                yield answer
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = (str(error).splitlines() or [""])[-1]
            if died == done:
                raise ConfigError(
                    f"worker processes that decode images die ({reason}): set dataset.workers lower, or 0; "
                    "in a container, more shared memory (--shm-size) may help"
                ) from error
            died = done
            log.warning("a worker process that decodes images died (%s): new ones are started", reason)


def _as_it_is(answer: Any) -> Any:
    return answer


class Streaming(Loader):
    """Images that are read when they are needed.

    Augmentation crops a part of random area and shape and resizes it (``resized_crop``; Szegedy et al., 2015, as
    torchvision has it), mirrored half of the time, or is that of ``Resident`` (``shift``), or ``none``. Without the
    first, an image's shorter side is resized, and its middle cut out.

    Where images come in row groups that can only be read whole (Parquet), an epoch goes over row groups in a random
    order, and is in random order within windows of as many as a process keeps.

    A damaged training image is refused, or its place is taken by another one, always the same; a damaged image to
    evaluate on is always refused, as accuracy over fewer images would be another number.

    Args:
        train: the training images.
        held: those to evaluate on.
        option: its ``flip`` and number of classes.
        reader: decodes.
        device: where the batches appear.
        batch_size: B.
        seed: of the run.
        augment: how training images are augmented.
        skip: whether damaged training images are replaced.
        workers: how many processes decode; 0 decodes here.
        split: what the evaluated images are.
        source: checksum of the listing.
        ranks: the processes that share every batch.
        channels_last: as for ``Loader``.

    Raises:
        ConfigError: as for ``Loader``; later, a damaged image.
    """

    def __init__(
        self,
        train: Listing,
        held: Listing,
        option: Any,
        reader: Reader,
        device: torch.device | str,
        batch_size: int,
        seed: int,
        *,
        augment: Augment,
        skip: bool,
        workers: int,
        split: Literal["test", "validation"],
        source: str,
        ranks: Ranks = ALONE,
        channels_last: bool | None = None,
    ) -> None:
        shifts = augment == "shift"
        super().__init__((train.label, held.label), option, device, batch_size, seed, shifts, ranks, channels_last)
        self.train, self.held, self.reader, self.skip, self.workers = train, held, reader, skip, workers
        self.split, self.source = split, source
        self.crops = augment == "resized_crop"
        self._orders: dict[int, Tensor] = {}
        self._ready: tuple[int, Tensor, Tensor] | None = None
        self._next, self._answers = -1, iter(())
        self._told: set[int] = set()

    @property
    def checksum(self) -> str:
        """Return the checksum of the listing: nobody has seen all images."""
        return self.source

    def begin(self, step: int) -> None:
        """Wait for a step's images, so that the time is not the step's; workers go on to the next."""
        if self._ready is not None and self._ready[0] == step:
            return
        if self._next != step:
            self._answers = self._ahead(step)
        x, y = self._gather(self._answers, self._chosen(step), self._seeds(step))
        self._ready, self._next = (step, x, y), step + 1

    def batch(self, step: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Normalise the images that are ready."""
        self.begin(step)
        assert self._ready is not None
        _, x, y = self._ready
        return self._finish(x[part], self._draws(step)[:, part] if self.augment else None), y[part]

    def eval_batches(self, batch_size: int, training: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Decode the images, by workers of their own."""
        rank, size = self.ranks.rank, self.ranks.size
        listing = self.train if training else self.held
        parts = torch.arange(len(listing)).split(batch_size // size)[rank::size]
        found = self._answered(listing, [(part, None) for part in parts])
        for part in parts:
            x, y = self._gather(found, part, None, held=not training)
            yield self._normalise(x), y

    def close(self) -> None:
        """End the workers."""
        self._next, self._answers = -1, iter(())

    def decoded(self, chosen: np.ndarray | None = None, held: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Decode training images, or those to evaluate on, as they are evaluated: those chosen, or all.

        Returns:
            (count, 3, S, S) uint8, and (count,) int64, the labels.
        """
        listing = self.held if held else self.train
        which = torch.arange(len(listing)) if chosen is None else torch.from_numpy(chosen)
        x, y = self._gather(self._answered(listing, [(which, None)]), which, None, held)
        return x.cpu().numpy(), y.cpu().numpy()

    def _ahead(self, first: int) -> Iterator[tuple[Tensor, list[Fault]]]:
        """Answer the requests of all steps from ``first`` on."""
        chunks = -(-self.batch_size // self.ranks.size // CHUNK)

        def requests(done: int) -> Iterator[Request]:
            return islice(self._endless(first + done // chunks), done % chunks, None)

        ahead = max(AHEAD, -(-chunks // max(1, self.workers)))
        return answers(self.reader, requests, self.workers, ahead, self.device.type == "cuda")

    def _endless(self, step: int) -> Iterator[Request]:
        while True:
            yield from _requests(self.train, self._chosen(step), self._seeds(step))
            step += 1

    def _answered(
        self, listing: Listing, parts: Sequence[tuple[Tensor, list[int] | None]]
    ) -> Iterator[tuple[Tensor, list[Fault]]]:
        """Answer the requests for parts of a listing, each with its seeds."""

        def requests(done: int) -> Iterator[Request]:
            every = (request for chosen, seeds in parts for request in _requests(listing, chosen, seeds))
            return islice(every, done, None)

        chunks = sum(-(-len(chosen) // CHUNK) for chosen, _ in parts)
        return answers(self.reader, requests, min(self.workers, chunks), pin=self.device.type == "cuda")

    def _gather(
        self, found: Iterator[tuple[Tensor, list[Fault]]], chosen: Tensor, seeds: list[int] | None, held: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Put a batch together of its chunks; returns images (count, 3, S, S) uint8 and labels, on the device."""
        size = self.reader.size
        x = torch.empty(len(chosen), 3, size, size, dtype=torch.uint8, device=self.device)
        which = chosen.tolist()
        for first in range(0, len(which), CHUNK):
            part, faults = next(found)
            for position, sentence in faults:
                i = first + position
                if held or not self.skip:
                    hint = "" if held else ", or dataset.damaged=skip uses another image in its place"
                    raise ConfigError(f"{sentence}: fetch it again, or remove it{hint}")
                seed = None if seeds is None else [seeds[i]]
                part[position], which[i] = self._instead(which[i], sentence, seed)
            x[first : first + len(part)].copy_(part, non_blocking=True)
        labels = self.eval_labels if held else self.labels
        y = labels[torch.tensor(which, dtype=torch.int64)]
        if self.device.type == "cuda":
            y = y.pin_memory()  # or the copy waits for the step before
        return x, y.to(self.device, non_blocking=True)

    def _instead(self, index: int, sentence: str, seed: list[int] | None) -> tuple[Tensor, int]:
        """Decode the image that takes a damaged one's place, whatever the run and the step."""
        for attempt in range(TRIES):
            other = stream(0, "instead", index, attempt) % self.train_count
            found, faults = self.reader[Request([self.train.place(other)], seed)]
            if not faults:
                if index not in self._told:
                    self._told.add(index)
                    log.warning("%s: it is skipped, and another image is used in its place", sentence)
                return found[0], other
        raise ConfigError(f"{sentence}, and so are {TRIES} others: the data set is damaged")

    def _training(self, chosen: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        seeds = draws[0].tolist() if self.crops and draws is not None else None
        x, y = self._gather(self._answered(self.train, [(chosen, seeds)]), chosen, seeds)
        return self._finish(x, draws), y

    def _seeds(self, step: int) -> list[int] | None:
        return self._draws(step)[0].tolist() if self.crops else None

    def _draw(self, count: int, draws: torch.Generator) -> Tensor:
        """Draw a seed for each image, (1, count) int64, by which a worker augments it; a shift as ``Loader`` does."""
        return torch.randint(1 << 62, (1, count), generator=draws) if self.crops else super()._draw(count, draws)

    def _chosen(self, step: int) -> Tensor:
        """Return which training images are this process's part of a step's batch, (B / P,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:  # workers may be in the next one already
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1} | {
                epoch: self._permutation(epoch)
            }
        whole = self._orders[epoch][position * self.batch_size : (position + 1) * self.batch_size]
        return whole[self.ranks.local_slice(self.batch_size)]

    def _permutation(self, epoch: int) -> Tensor:
        group = self.train.group
        if group is None or self.train.group_bytes is None:
            return super()._permutation(epoch)
        return window_order(group, self.train.group_bytes, self.seed, epoch)


def window_order(group: np.ndarray, group_bytes: np.ndarray, seed: int, epoch: int) -> Tensor:
    """Draw an order in which few row groups are needed at a time; a plain permutation where all fit in one window.

    Args:
        group: of each image, (N,), an index into ``group_bytes``.
        group_bytes: of each row group.
        seed: of the run.
        epoch: from 0 on.

    Returns:
        (N,) int64.
    """
    order = torch.randperm(len(group_bytes), generator=generator(seed, "row groups", epoch)).numpy()
    window = np.empty(len(group_bytes), np.int64)
    window[order] = np.cumsum(group_bytes[order]) // WINDOW_BYTES
    where = torch.from_numpy(window[group])
    draws = generator(seed, "order", epoch)
    parts = where.argsort(stable=True).split(where.unique(return_counts=True)[1].tolist())
    return torch.cat([part[torch.randperm(len(part), generator=draws)] for part in parts])


def _requests(listing: Listing, chosen: Tensor, seeds: list[int] | None) -> Iterator[Request]:
    """Split images into requests of a chunk each."""
    which = chosen.tolist()
    for first in range(0, len(which), CHUNK):
        part = slice(first, first + CHUNK)
        yield Request([listing.place(i) for i in which[part]], None if seeds is None else seeds[part])
