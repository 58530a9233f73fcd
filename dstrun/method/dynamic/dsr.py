"""Dynamic sparse reparameterization (Mostafa and Wang 2019): one threshold prunes, layers trade connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Share, Within, option
from dstrun.method.dynamic.stages import check_stages, shortened, stage
from dstrun.method.procedure import Method, Procedure, Products, Setting


@option
class DSR(Method):
    """Prune every weight below a threshold H of the whole network; regrow as many where most survived.

    Every P steps, P being the stage's of ``periods``, each layer loses its active weights with |w| < H (Algorithm 1),
    but never its last. All K of them grow again at value 0, at random within a layer, K l / sum(l) in a layer with l
    survivors. Then H halves where K > (1 + tolerance) N_p and doubles where K < (1 - tolerance) N_p. N_p is
    ``target`` times the active connections, or ``target_count`` outright.

    ``period_changes`` and ``end`` are shares of training. A run shorter than ``recipe_steps`` shortens P in proportion.
    Layers that start dense stay so and take no part.
    """

    threshold: Annotated[float, Above(0)] = 1e-3
    tolerance: Annotated[float, Within(0, 1, high_open=True)] = 0.1
    target: Annotated[float, Within(0, 1, low_open=True)] = 0.138
    target_count: Annotated[int, AtLeast(1)] | None = None
    periods: tuple[Annotated[int, AtLeast(1)], ...] = (100, 200, 400, 800)
    period_changes: tuple[Share, ...] = (0.125, 0.4, 0.7)
    end: Share = 0.95
    recipe_steps: Annotated[int, AtLeast(1)] = 100000

    why: ClassVar[str] = "which prunes by one threshold and regrows at random where most connections survive"
    scopes: ClassVar[tuple[str, ...]] = ("global",)
    grows_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_stages("method.periods", self.periods, "method.period_changes", self.period_changes)

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"target"} if self.target_count is not None else set()

    def procedure(self, setting: Setting) -> Procedure:
        """Start reallocating."""
        from dstrun.method.dynamic.reallocation import Reallocation

        return Reallocation(setting, self)

    def steps(self, total: int) -> list[int]:
        """List the steps, counted from 1, at which a run of ``total`` steps reallocates."""
        found, last, step = [], round(self.end * total), 0
        while True:
            period = self.periods[stage(self.period_changes, step + 1, total)]
            step += shortened(period, self.recipe_steps, total, last)
            if step > last:
                return found
            found.append(step)

    def wanted(self, active: int) -> int:
        """Return N_p, how many of the active connections an update shall prune."""
        return self.target_count or max(1, round(self.target * active))

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict the updates; where they move connections to only the weights know, so costs are the start's."""
        before = 0
        for step in [*self.steps(total), total]:
            yield step - before, Products.of(counts)
            before = step
