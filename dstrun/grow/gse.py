"""Guided stochastic exploration: grow the best of a drawn subset (Heddes et al. 2024, Algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from dstrun.config.option import Above, OneOf, option
from dstrun.layer.criterion import Cost
from dstrun.subset.criterion import SubsetDistribution
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from dstrun.layer.growth import GrowthContext


@option
class GSE:
    """Draw a subset S of about gamma A inactive connections and score them by |dL/dw|.

    ``sampling=exact`` draws until |S| = min(gamma A, N - A): successive sampling without replacement among the inactive
    connections. ``sampling=single`` follows Algorithm 2 exactly: ceil(gamma A) draws with replacement among all
    connections, of which repeated and active ones are dropped.
    """

    subset: SubsetDistribution
    gamma: Annotated[float, Above(0)] = 1.0
    sampling: Annotated[str, OneOf("exact", "single")] = "exact"

    cost: ClassVar[Cost] = Cost.CANDIDATE_GRAD
    regrow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.subset is None:  # a configuration may leave it out
            raise ConfigError("subset=null makes no sense with grow=gse, which draws one")

    @property
    def aggregates(self) -> bool:
        """Return whether the subset's distribution looks at the pass."""
        return self.subset.aggregates

    @property
    def paper_candidates(self) -> float:
        """Return gamma, by which the paper counts."""
        return self.gamma

    def expected_candidates(self, active: int, size: int) -> int:
        """Predict |S| of a layer of ``size`` connections; the most it can be where that hangs on the pass.

        Of ``sampling=single`` with a uniform subset it is the mean: m draws hit each of N connections with a
        probability of 1 - (1 - 1 / N)^m, and N - A of them are inactive.
        """
        import math

        wanted = math.ceil(self.gamma * active)
        if self.sampling == "exact" or self.aggregates or size == active:
            return min(wanted, size - active)
        return round((size - active) * -math.expm1(wanted * math.log1p(-1 / size)))

    def look(self, context: GrowthContext) -> None:
        """Ask for the sums of the subset's distribution."""
        self.subset.factors(context)

    def candidates(self, context: GrowthContext) -> Tensor:
        """Draw the subset from this pass's input and output gradient."""
        import math

        from dstrun.subset.draw import draw

        wanted = math.ceil(self.gamma * context.active)
        f, g = self.subset.factors(context)
        return draw(f, g, context, wanted, exact=self.sampling == "exact")

    def score(self, gradient: Tensor | None, positions: Tensor | None, context: GrowthContext) -> Tensor:
        """Score by the gradient's magnitude."""
        assert gradient is not None
        return gradient.abs()
