"""MEST: elastic mutation, and the soft memory bound (Yuan et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from dstrun.config.option import option
from dstrun.method.procedure import Method, Procedure, Products, Setting


@option
class MEST(Method):
    """Let m = a_t C connections of each layer mutate at an update, C the count that the budget gives it.

    Elastic mutation (EM) prunes to C - m and grows m at random at once. With ``soft_bound`` (EM&S) a layer has C + m
    connections between updates: an update prunes to C, and grows m that are trained before they are judged; from t_end
    on it has C.
    """

    soft_bound: bool = False

    parts: ClassVar[tuple[str, ...]] = ("prune", "schedule")
    why: ClassVar[str] = "which grows at random in each layer"
    grows_at_zero: ClassVar[bool] = True

    def procedure(self, setting: Setting) -> Procedure:
        """Start mutating."""
        from dstrun.method.dynamic.mutation import Mutation, SoftlyBound

        return (SoftlyBound if self.soft_bound else Mutation)(setting)

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict the active connections between updates."""

        def active(step: int) -> list[int]:
            soft = [mutating(schedule, step, total, c, n) for c, n in zip(counts, sizes, strict=True)]
            return [c + m if self.soft_bound else c for c, m in zip(counts, soft, strict=True)]

        before = 0
        for step in update_steps(schedule, total, self.soft_bound):
            yield step - before, Products.of(active(before))
            before = step
        yield total - before, Products.of(active(before))


def update_steps(schedule: Any, total: int, soft_bound: bool) -> list[int]:
    """List the steps that mutate, and with a soft bound t_end, where the target is reached."""
    last = schedule.last(total)
    steps = {step for step in schedule.steps(total) if step < last and schedule.fraction_at(step, total) > 0}
    return sorted(steps | {last} if soft_bound and 0 < last <= total else steps)


def mutating(schedule: Any, step: int, total: int, count: int, size: int) -> int:
    """Count the connections that mutate at a step in a layer of ``size`` with a budget of ``count``: m."""
    fraction = schedule.fraction_at(step, total) if step < schedule.last(total) else 0.0
    return min(round(fraction * count), count - 1, size - count)
