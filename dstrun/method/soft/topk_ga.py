"""Top-k with gradient annealing: a fixed budget, found with gradients for pruned weights (Kundu et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dstrun.config.option import option
from dstrun.method.procedure import Procedure, Products, Setting
from dstrun.method.soft.annealing import Annealed

if TYPE_CHECKING:
    from torch import nn

    from dstrun.layer.interface import SparseLayer


@option
class TopKGA(Annealed):
    """Use the ``allocation`` count of largest |w| of each layer, chosen anew at every step.

    Gradients reach the others too, times an alpha that falls (``Annealed``); when it is 0 the others are pruned and
    the topology stays.
    """

    why: ClassVar[str] = "which takes the largest weights of each layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which keeps a dense store of weights to choose from"

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Let the layers use a part of their weights."""
        from dstrun.method.soft.attach import attach
        from dstrun.method.soft.selected import Selected

        attach(model, layers, Selected)

    def procedure(self, setting: Setting) -> Procedure:
        """Choose the weights of the first step."""
        from dstrun.method.soft.choosing import Choosing

        return Choosing(setting, self)

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict 2 f_S + f_D a step while alpha is above 0, then 3 f_S."""
        last = self.last(total)
        yield last, Products.of(counts, sizes if self.alpha else counts)
        yield total - last, Products.of(counts)
