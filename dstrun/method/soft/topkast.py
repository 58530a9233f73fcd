"""Top-KAST: always sparse forward and backward, from a dense store (Jayakumar et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, Share, Within, option
from dstrun.method.procedure import Method, Procedure, Products, Setting

if TYPE_CHECKING:
    from torch import nn

    from dstrun.layer.interface import SparseLayer

RECIPE_STEPS = 32_000
"""Of the paper's runs on ImageNet, in which masks are refreshed every 100 steps."""


@option
class TopKAST(Method):
    """Use the largest weights A of each layer in the forward pass, and train a superset B of them.

    A are a layer's ``allocation`` count of largest |theta|, B more of them: of each layer's other connections the same
    share, so that ``backward_sparsity`` of all have no gradient. Both are chosen anew every ``refresh_steps`` (of
    32,000; in a shorter run in proportion). The loss is given (decay / 2) (sum_A theta^2 + sum_B-A theta^2 / D), D
    the layer's density, in place of the optimizer's weight decay; outside B nothing moves. From ``explore_end``, a
    share of training, B is A and both stay.
    """

    backward_sparsity: Annotated[float, Within(0, 1, high_open=True)] = 0.5
    refresh_steps: Annotated[int, AtLeast(1)] = 100
    exploration_decay: Annotated[float, AtLeast(0)] = 1e-4
    explore_end: Share = 1.0

    why: ClassVar[str] = "which takes the largest weights of each layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which keeps a dense store of weights to choose from"

    def objection(self, config: dict[str, Any]) -> str:
        """Object to gradients for fewer connections than the forward pass uses."""
        if self.backward_sparsity <= config["sparsity"]:
            return ""
        return (
            f"method.backward_sparsity={self.backward_sparsity:g} must be at most sparsity={config['sparsity']:g}: "
            "the backward pass takes more connections than the forward pass, not fewer"
        )

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Let the layers use a part of their weights."""
        from dstrun.method.soft.attach import attach
        from dstrun.method.soft.selected import Selected

        attach(model, layers, Selected)

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Keep the optimizer's weight decay off the prunable weights: the loss has it."""
        from dstrun.layer.interface import prunable
        from dstrun.method.soft.attach import grouped

        stored = [module.parametrizations["weight"].original for _, module in prunable(model)]  # type: ignore[index]
        return grouped(model, weight_decay, stored, 0.0)  # type: ignore[arg-type]

    def procedure(self, setting: Setting) -> Procedure:
        """Choose A and B for the first step."""
        from dstrun.method.soft.exploring import Exploring

        return Exploring(setting, self)

    def reached(self, sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
        """Count B of every layer."""
        total, active = sum(sizes), sum(counts)
        share = max(0.0, (1 - self.backward_sparsity) * total - active) / max(1, total - active)
        return [a + round(min(1.0, share) * (n - a)) for n, a in zip(sizes, counts, strict=True)]

    def last(self, total: int) -> int:
        """Return the step after which A stays, in a run of ``total``."""
        return max(1, round(self.explore_end * total))

    def refreshes(self, total: int) -> range:
        """Return the steps after which A and B are chosen anew."""
        interval = max(1, round(self.refresh_steps * min(1.0, total / RECIPE_STEPS)))
        return range(interval, self.last(total), interval)

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict 2 f_A + f_B a step until exploration ends, then 3 f_A."""
        before = 0
        for step in (*self.refreshes(total), self.last(total)):
            yield step - before, Products.of(counts, self.reached(sizes, counts))
            before = step
        yield total - before, Products.of(counts)
