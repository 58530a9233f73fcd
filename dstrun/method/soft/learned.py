"""Methods that learn a threshold for each layer, so that training itself finds the sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Within, option
from dstrun.method.procedure import Method, Procedure, Products, Setting

if TYPE_CHECKING:
    from torch import nn

    from dstrun.layer.interface import SparseLayer


@option
class Learned(Method):
    """Settings of w~ = sign(w) relu(|w| - sigmoid(s)), with one s a layer that is trained beside the weights.

    Weight decay of s, which starts far below 0, raises the threshold. What it reaches depends on the length of the run:
    ``threshold_decay`` is that of a run of ``recipe_steps``, and a run n times shorter has n times as much. It depends
    on the learning rate too, so that s is trained by SGD at a rate and a momentum of its own, whatever optimizer the
    weights have: ``threshold_lr`` at first, then as much less as the schedule takes off theirs.
    """

    s_init: float = -8.0
    threshold_decay: Annotated[float, AtLeast(0)] = 5e-5
    threshold_lr: Annotated[float, Above(0)] = 0.1
    threshold_momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    recipe_steps: Annotated[int, AtLeast(1)] = 78_000

    why: ClassVar[str] = "whose thresholds are learned and find the sparsity"
    start: ClassVar[str] = "all"
    budget: ClassVar[bool] = False
    dense: ClassVar[str] = "which keeps all weights beside their thresholds"

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return super().unread(parts) | ({"recipe_steps"} if self.threshold_decay == 0 else set())

    def reached(self, size: int) -> int | None:
        """Count the weights of a layer of ``size`` that have gradients while alpha is above 0; ``None``: all."""
        return None

    def alpha_at(self, step: int, total: int) -> float:
        """Return the factor on gradients of pruned weights at a step, counted from 1, of ``total``."""
        return 0.0

    def decay(self, total: int) -> float:
        """Return the weight decay of the thresholds in a run of ``total`` steps."""
        return self.threshold_decay * max(1.0, self.recipe_steps / total)

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Return every layer its threshold."""
        from dstrun.method.soft.attach import attach
        from dstrun.method.soft.threshold import Threshold

        attach(model, layers, lambda weight: Threshold(weight, self.s_init, self.reached(weight.numel())))

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Leave the thresholds out, which have an optimizer of their own."""
        from dstrun.method.soft.attach import but
        from dstrun.method.soft.threshold import Threshold

        thresholds = [module.s for module in model.modules() if isinstance(module, Threshold)]
        return but(super().parameters(model, weight_decay), thresholds)

    def procedure(self, setting: Setting) -> Procedure:
        """Start with every weight."""
        from dstrun.method.soft.thresholding import Thresholding

        return Thresholding(setting, self)

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict at most what it costs: dense training, for what training prunes is not known before."""
        yield total, Products.of(sizes)
        yield 0, Products.of(sizes)
