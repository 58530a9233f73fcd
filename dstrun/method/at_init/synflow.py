"""SynFlow: iterative synaptic flow pruning, without data (Tanaka et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from dstrun.config.option import AtLeast, option
from dstrun.method.at_init.once import PruneOnce
from dstrun.method.procedure import Setting

if TYPE_CHECKING:
    from dstrun.method.at_init.scoring import Scores


@option
class SynFlow(PruneOnce):
    """Keep the connections of largest |w dR/dw|, R the sum of the outputs for an input of ones with weights |w|.

    In ``rounds`` (n) rounds, after the k-th of which a share (1 - sparsity)^(k / n) is left and scored anew (algorithm
    1): that way no layer loses its last connection before it must. No data, no chance.
    """

    rounds: Annotated[int, AtLeast(1)] = 100

    def score(self, setting: Setting) -> Scores:
        """Return the last round's |w dR/dw|, and -1 where an earlier round has pruned: (N,) of every layer."""
        from dstrun.method.at_init.flow import flow_after

        return flow_after(self.rounds, setting), self.rounds

    def scored_samples(self, classes: int) -> int:
        """Count the input of ones once a round."""
        return self.rounds
