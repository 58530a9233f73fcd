"""SNFS: grow where the momentum of the gradient is largest (Dettmers and Zettlemoyer 2019).

Shape letters: A active connections of a layer, N those of the dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Within, option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer
from dstrun.layer.selection import highest, lowest
from dstrun.layer.topology import without
from dstrun.method.dynamic.exchange import exchange
from dstrun.method.dynamic.regrowth import regrowth
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.update import ProductCounts, Update
from dstrun.schedule import update_steps
from dstrun.system.lazy import torch
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched, sent

if TYPE_CHECKING:
    from torch import Tensor

CROWDED = 0.8
"""A layer of higher density that grows is spared: it loses no larger share than is inactive of it."""


@option
class SNFS(Method):
    """Track M <- ``momentum`` M + (1 - ``momentum``) g of every connection; prune in each layer, grow by |M|.

    At an update each layer loses ceil(a_t A) connections. With ``redistribution`` all pruned connections are
    redistributed to layers in proportion to their mean |M| over active connections, and grow where |M| is largest;
    without it (as in Evci et al. 2020) a layer grows as many as it lost.
    """

    momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    redistribution: bool = True

    parts: ClassVar[tuple[str, ...]] = ("prune", "schedule")
    why: ClassVar[str] = "which prunes a share of each layer and grows by momentum"
    dense: ClassVar[str] = "which tracks the gradient of every connection at every step"
    grows_at_zero: ClassVar[bool] = True

    def procedure(self, setting: Setting) -> Procedure:
        """Start following gradients."""
        return Momentum(setting, self.momentum, self.redistribution)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the dense weight gradient of every step; how connections move between layers is not known before."""
        before = 0
        for step in update_steps(schedule, total):
            yield step - before, ProductCounts.of(counts, sizes)
            before = step
        yield total - before, ProductCounts.of(counts, sizes)


class Momentum(Procedure):
    """Follows every gradient, updates after the optimizer's step; ``SNFS`` says what the arguments mean."""

    def __init__(self, setting: Setting, momentum: float, redistribution: bool) -> None:
        self.setting, self.momentum, self.redistribution = setting, momentum, redistribution
        self.layers: Sequence[DenseLayer] = setting.layers  # type: ignore[assignment]
        self.steps = set(update_steps(setting.schedule, setting.total_steps))
        self.sizes = [math.prod(layer.geometry.shape) for layer in self.layers]
        self.mean = [torch.zeros(n, device=x.weight.device) for n, x in zip(self.sizes, self.layers, strict=True)]

    def updates_at(self, step: int) -> bool:
        """Return whether the schedule has an update at a step."""
        return step in self.steps

    def after_backward(self, step: int) -> None:
        """Follow the gradient of every connection; one that overflowed (fp16) counts as 0."""
        for mean, layer in zip(self.mean, self.layers, strict=True):
            mean.lerp_(layer.dense_grad().nan_to_num(0.0, 0.0, 0.0), 1 - self.momentum)

    def after_step(self, step: int) -> Update | None:
        """Prune and grow."""
        if step not in self.steps:
            return None
        need = self.need()
        removed = self.removed(self.setting.schedule.fraction_at(step, self.setting.total_steps), need)
        grown = removed
        if self.redistribution:
            free = [n - x.count + out for n, x, out in zip(self.sizes, self.layers, removed, strict=True)]
            grown = regrowth(need, sum(removed), free)
        active = [layer.topology.positions for layer in self.layers]
        orders = fetched([lowest(self._scores(step, index), count) for index, count in enumerate(removed)])
        gone = [positions[order] for positions, order in zip(active, orders, strict=True)]
        left = [without(positions, out) for positions, out in zip(active, gone, strict=True)]
        scored = [size - survivors.numel() for size, survivors in zip(self.sizes, left, strict=True)]
        come = fetched([highest(m.abs(), n, out) for m, n, out in zip(self.mean, grown, left, strict=True)])
        return Update(step, Cost.NONE, False, 0, list(map(exchange, self.layers, gone, come, scored)))

    def need(self) -> list[float]:
        """Return the mean |M| over the active connections of each layer, as a share of the layers' sum."""
        active = [sent(x.topology.positions, mean.device) for mean, x in zip(self.mean, self.layers, strict=True)]
        means = [mean[at].abs().mean() for mean, at in zip(self.mean, active, strict=True)]
        values = torch.stack(means).double()
        return (values / values.sum()).nan_to_num(1 / len(means)).tolist()

    def removed(self, fraction: float, need: Sequence[float]) -> list[int]:
        """Count what each layer loses, never its last connection."""
        counts = []
        for layer, size, share in zip(self.layers, self.sizes, need, strict=True):
            inactive = 1 - layer.count / size
            crowded = self.redistribution and inactive < 1 - CROWDED and share > 1 / len(self.layers)
            part = min(fraction, inactive) if crowded else fraction
            counts.append(min(math.ceil(part * layer.count), layer.count - 1))
        return counts

    def products(self) -> ProductCounts:
        """Count the gradient of every weight at every step."""
        return ProductCounts.of([layer.count for layer in self.layers], self.sizes)

    def state(self) -> dict[str, Any]:
        """Return M of every layer."""
        return {"mean": self.mean}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's M."""
        self.mean = [saved.to(mean.device) for saved, mean in zip(state["mean"], self.mean, strict=True)]

    def _scores(self, step: int, index: int) -> Tensor:
        return self.setting.prune.score(self.layers[index], generator(self.setting.seed, "prune", step, index))
