"""SNFS: grow where the momentum of the gradient is largest (Dettmers and Zettlemoyer 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from dstrun.config.option import Within, option
from dstrun.method.procedure import Method, Procedure, Products, Setting


@option
class SNFS(Method):
    """Follow M <- ``momentum`` M + (1 - ``momentum``) g of every connection; prune in each layer, grow by |M|.

    At an update each layer loses ceil(a_t A) connections. With ``redistribution`` a layer then gets a share of all that
    went in proportion to its mean |M| over active connections, as those inactive ones of largest |M|; without it (as
    in Evci et al. 2020) it gets back as many as it lost.
    """

    momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    redistribution: bool = True

    parts: ClassVar[tuple[str, ...]] = ("prune", "schedule")
    why: ClassVar[str] = "which prunes a share of each layer and grows by momentum"
    dense: ClassVar[str] = "which follows the gradient of every connection at every step"
    grows_at_zero: ClassVar[bool] = True

    def procedure(self, setting: Setting) -> Procedure:
        """Start following gradients."""
        from dstrun.method.dynamic.momentum import Momentum

        return Momentum(setting, self.momentum, self.redistribution)

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict the dense weight gradient of every step; how connections move between layers is not known before."""
        before = 0
        for step in update_steps(schedule, total):
            yield step - before, Products.of(counts, sizes)
            before = step
        yield total - before, Products.of(counts, sizes)


def update_steps(schedule: Any, total: int) -> list[int]:
    """List the steps at which a schedule replaces anything."""
    return [step for step in schedule.steps(total) if schedule.fraction_at(step, total) > 0]
