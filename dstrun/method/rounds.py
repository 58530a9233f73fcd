"""Train and prune repeatedly: shared by the methods in ``after`` and ``lottery``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.method.interface import Method
from dstrun.method.update import ProductCounts


@option
class Rounds(Method):
    """A dense training, then rounds: each prunes before its first step, then trains.

    So the last row of ``metrics.csv`` before a round is the accuracy of the network that is about to be pruned.
    """

    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which starts dense"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")

    def shares(self, sparsity: float) -> list[float]:
        """Return how far each round prunes: x leaves the density (1 - sparsity)^x; increasing, the last is 1."""
        raise NotImplementedError

    def round_epochs(self, epochs: int) -> int:
        """Return the length of a round, where the dense training takes ``epochs``: 1 to ``epochs``."""
        raise NotImplementedError

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Add the rounds to the dense training."""
        return epochs + len(self.shares(sparsity)) * self.round_epochs(epochs)

    def course(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, epochs: int, sparsity: float, per_epoch: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the dense training and the rounds, each with what its pruning leaves."""
        yield epochs * per_epoch, ProductCounts.of(sizes)
        for share in self.shares(sparsity):
            left = [survivors(n, c, share) for n, c in zip(sizes, counts, strict=True)]
            yield self.round_epochs(epochs) * per_epoch, ProductCounts.of(left)


def survivors(size: int, target: int, share: float) -> int:
    """Count what is left of ``size`` connections that far on the way to ``target``: all at 0, the target at 1."""
    return round(size * (target / size) ** share)
