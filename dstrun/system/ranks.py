"""The processes that train one run together: one, unless ``distributed=ddp`` has started several.

Whatever looks at a batch asks them: which part of it is here, and what a sum comes to over all of it. The answers of
a single process are here; ``dstrun.train.distributed`` has those of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Made = TypeVar("Made")


class Ranks:
    """One process, which has the whole batch and asks nobody.

    Attributes:
        rank: of this process, from 0 on.
        size: how many processes there are.
        apart: whether every process works for itself now, on the same samples (see ``alone``).
    """

    rank: int = 0
    size: int = 1
    apart: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """Into how many equal parts the batch that is passed now has been split."""
        return 1 if self.apart else self.size

    def local_slice(self, count: int) -> slice:
        """Return which of a batch of ``count`` samples are this process's: consecutive ones, in the order of ranks."""
        part = count // self.parts
        first = 0 if self.apart else self.rank * part
        return slice(first, first + part)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Pass the same whole batch in every process, as a single process would."""
        before, self.apart = self.apart, True
        try:
            yield
        finally:
            self.apart = before

    def average(self, tensor: Tensor) -> Tensor:
        """Return the mean over processes of a tensor that each has, the same bits in all; may overwrite it."""
        return tensor

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums over processes."""
        return list(numbers)

    def any_rank(self, word: str | None) -> str | None:
        """Return what one of the processes says, where one says anything."""
        return word

    def broadcast(self, make: Callable[[], Made]) -> Made:
        """Return in all processes what the first makes."""
        return make()

    def check_equal(self, numbers: Sequence[int], what: str) -> None:
        """Make sure that all processes have the same numbers.

        Raises:
            RuntimeError: they differ; ``what`` begins the sentence.
        """

    def overlapped(self, model: nn.Module, trial: Callable[[nn.Module], Tensor]) -> nn.Module:
        """Return a module to call in place of the network, whose backward pass averages gradients while it runs.

        Args:
            model: the network.
            trial: gives a loss by which to try it out; that pass counts for nothing.
        """
        return model

    def deferred(self, model: nn.Module) -> AbstractContextManager[None]:
        """Add up gradients here in passes through what ``overlapped`` gave; a later pass averages them."""
        return nullcontext()

    def reshaped(self) -> None:
        """Learn that a parameter has changed its shape."""

    def average_gradients(self, model: nn.Module) -> None:
        """Average the gradients that a backward pass through the network itself has left."""

    def bucket_bytes(self) -> int:
        """Count the bytes kept between steps to send gradients from."""
        return 0

    def leave(self, failed: bool) -> None:
        """Part from the other processes."""


ALONE = Ranks()
"""A single process."""


class Passes:
    """The passes, forward and backward, in which a process goes over its part of a batch.

    Args:
        size: samples a pass at most; all if ``None``.

    Attributes:
        count: how many passes the batch takes that is passed now, of as many samples each.
        index: of the pass under way, from 0 on.
        wanted: whether an armed layer draws candidates from sums over the batch, which take passes of their own.
        summing: whether the passes now are these.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size, self.count, self.index = size, 1, 0
        self.wanted = self.summing = False

    @property
    def last(self) -> bool:
        """Whether no pass over this batch follows."""
        return self.index == self.count - 1

    def over(self, samples: int) -> Iterator[slice]:
        """Go through the passes over so many samples: as few as ``size`` allows, all of the same number."""
        size = max(n for n in range(1, min(self.size or samples, samples) + 1) if samples % n == 0)
        self.count = samples // size
        for index in range(self.count):
            self.index = index
            yield slice(index * size, (index + 1) * size)


class Sums(Ranks):
    """The processes of a run, asked of one pass of several: what a tensor comes to over all passes so far.

    Args:
        ranks: the processes.
        passes: says which pass this is.
        kept: the sums so far, in the order in which they are asked for, which is the same in every pass; changed.
    """

    def __init__(self, ranks: Ranks, passes: Passes, kept: list[Tensor]) -> None:
        self.ranks, self.passes, self.kept, self.asked = ranks, passes, kept, 0
        self.rank, self.size, self.apart = ranks.rank, ranks.size, ranks.apart

    @property
    def parts(self) -> int:
        """Into how many parts processes and passes split the batch."""
        return self.ranks.parts * self.passes.count

    def local_slice(self, count: int) -> slice:
        """Return which samples of a batch of ``count`` are passed now."""
        part = count // self.parts
        first = ((0 if self.apart else self.rank) * self.passes.count + self.passes.index) * part
        return slice(first, first + part)

    def average(self, tensor: Tensor) -> Tensor:
        """Add a tensor to those of the passes before; in the last pass, return the mean over processes of the sum."""
        place, self.asked = self.asked, self.asked + 1
        if place == len(self.kept):
            self.kept.append(tensor.clone())
        else:
            self.kept[place] += tensor
        return self.ranks.average(self.kept[place]) if self.passes.last else self.kept[place]
