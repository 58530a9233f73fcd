"""What a run of a method will compute, known before it trains: the basis of ``dstrun plan``.

Shape letter: N connections of a dense layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dstrun.method.update import ProductCounts


class Forecast:
    """Lengths and costs of a run; an option overrides what is different from training a fixed topology once."""

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Return the length of the whole run to a sparsity in epochs, where one training takes ``epochs``."""
        return epochs

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict what a run computes, for ``dstrun plan``: stretches of steps, an update between two of them.

        Args:
            sizes: N of every layer.
            counts: what each shall have at the end; the same density everywhere where scores decide.
            schedule: the part of that name, if any.
            total: steps of the whole run.
        """
        yield total, ProductCounts.of(counts)

    def course(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, epochs: int, sparsity: float, per_epoch: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict a whole run; ``planned_phases`` is one training, and methods that train repeatedly override this."""
        return self.planned_phases(sizes, counts, schedule, self.epochs(epochs, sparsity) * per_epoch)

    def scored_samples(self, classes: int) -> int:
        """Predict how many samples are scored before the first step (``Update.samples``)."""
        return 0

    def fresh_samples(self, batch_size: int, classes: int) -> int:
        """Predict on how many samples of its own an update scores candidates; 0: on the batch of the step it replaces.

        Args:
            batch_size: of a step.
            classes: of the data set.
        """
        return 0

    def update_samples(self, classes: int) -> int:
        """Predict how many samples are scored between two stretches, on the network of the first."""
        return 0
