"""What methods share that prune once, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import AtLeast, option
from dstrun.method.procedure import Method, Procedure, Setting

if TYPE_CHECKING:
    from dstrun.method.at_init.scoring import Scores


@option
class PruneOnce(Method):
    """Score every connection of the network as it was initialized, keep the best, then train these."""

    why: ClassVar[str] = "which prunes once, before training"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which scores every connection of the dense network"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")

    def procedure(self, setting: Setting) -> Procedure:
        """Score and prune before the first step."""
        from dstrun.method.at_init.scoring import Scoring

        return Scoring(setting, self.score)

    def score(self, setting: Setting) -> Scores:
        """Return the scores of every layer's connections, of which the highest are kept; leave the network as it is."""
        raise NotImplementedError


@option
class PruneOnSamples(PruneOnce):
    """Score on training samples.

    Attributes:
        samples_per_class: of every class, in one batch.
        rounds: such batches, drawn independently.
        splits: parts in which a batch is passed, to save memory; batch normalization is by each part.
    """

    samples_per_class: Annotated[int, AtLeast(1)] = 10
    rounds: Annotated[int, AtLeast(1)] = 1
    splits: Annotated[int, AtLeast(1)] = 1

    def scored_samples(self, classes: int) -> int:
        """Count the samples, each passed once."""
        return self.samples_per_class * classes * self.rounds
