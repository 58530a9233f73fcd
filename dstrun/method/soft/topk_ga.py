"""Top-k with gradient annealing: a fixed budget, found with gradients for pruned weights (Kundu et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.config.option import option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer, SparseLayer
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.soft.annealing import Annealed, Annealing
from dstrun.method.soft.attach import attach, attached, settle
from dstrun.method.update import ProductCounts, Update

if TYPE_CHECKING:
    from torch import nn


@option
class TopKGA(Annealed):
    """Use the ``allocation`` count of largest |w| of each layer, chosen anew at every step.

    The others get alpha times their gradient (``Annealed``); once alpha is 0 they are pruned and the topology is fixed.
    """

    why: ClassVar[str] = "which takes the largest weights of each layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which keeps dense weights to choose from"

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Make the layers use a part of their weights."""
        from dstrun.method.soft.selected import Selected

        attach(model, layers, Selected)

    def procedure(self, setting: Setting) -> Procedure:
        """Choose the weights of the first step."""
        return Choosing(setting, self)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict 2 f_S + f_D a step while alpha is above 0, then 3 f_S."""
        last = self.last(total)
        yield last, ProductCounts.of(counts, sizes if self.alpha else counts)
        yield total - last, ProductCounts.of(counts)


class Choosing(Annealing):
    """Takes the largest weights after every step of the optimizer until alpha is 0; then they are the topology."""

    def __init__(self, setting: Setting, method: TopKGA) -> None:
        from dstrun.method.soft.selected import Selected

        assert setting.counts is not None
        self.setting, self.method = setting, method
        self.layers: list[DenseLayer] = list(setting.layers)  # type: ignore[arg-type]
        self.modules = [attached(layer, Selected) for layer in self.layers]
        self.active, self.sizes = list(setting.counts), [layer.topology.size for layer in self.layers]
        self.last = method.last(setting.total_steps)
        for layer in self.layers:
            layer.ever.zero_()
        self._choose()
        self.await_step(1)

    def updates_at(self, step: int) -> bool:
        """Return whether the topology is settled at a step."""
        return step == self.last

    def after_step(self, step: int) -> Update | None:
        """Choose anew; or prune the others for good."""
        self.await_step(step + 1)
        if step < self.last:
            self._choose()
        if step != self.last:
            return None
        masks = [chosen.active for chosen in self.modules]
        for chosen in self.modules:
            chosen.reached.copy_(chosen.active)
        return Update(step, Cost.NONE, False, 0, settle(self.layers, masks, self.setting.strict))

    def products(self) -> ProductCounts:
        """Count the weights used, and all for weight gradients while alpha is above 0."""
        return ProductCounts.of(self.active, self.sizes if self.alpha else self.active)

    def _choose(self) -> None:
        for layer, chosen, active in zip(self.layers, self.modules, self.active, strict=True):
            chosen.choose(layer, active)
