"""Top-KAST: always sparse forward and backward, from a dense store (Jayakumar et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, Share, Within, option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer, SparseLayer, carried, prunable
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.soft.attach import attach, attached, grouped, settle
from dstrun.method.update import LayerUpdate, ProductCounts, Update
from dstrun.schedule.interval import in_proportion
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

RECIPE_STEPS = 32_000
"""Of the paper's runs on ImageNet, in which masks are refreshed every 100 steps."""


@option
class TopKAST(Method):
    """Use the largest weights A of each layer in the forward pass, and train a superset B of them.

    A are a layer's ``allocation`` count of largest |theta|, B more of them: of each layer's other connections the same
    share, so that ``backward_sparsity`` of all have no gradient. Both are chosen anew every ``refresh_steps`` (of
    32,000; in a shorter run in proportion). The loss is given (decay / 2) (sum_A theta^2 + sum_B-A theta^2 / D), D the
    layer's density, in place of the optimizer's weight decay; outside B nothing moves. From ``explore_end``, a share of
    training, B = A is fixed.
    """

    backward_sparsity: Annotated[float, Within(0, 1, high_open=True)] = 0.5
    refresh_steps: Annotated[int, AtLeast(1)] = 100
    exploration_decay: Annotated[float, AtLeast(0)] = 1e-4
    explore_end: Share = 1.0

    why: ClassVar[str] = "which takes the largest weights of each layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which keeps dense weights to choose from"

    def objection(self, config: dict[str, Any]) -> str:
        """Object to gradients for fewer connections than the forward pass uses."""
        if self.backward_sparsity <= config["sparsity"]:
            return ""
        return (
            f"method.backward_sparsity={self.backward_sparsity:g} must be at most sparsity={config['sparsity']:g}: "
            "the backward pass uses more connections than the forward pass, not fewer"
        )

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Make the layers use a part of their weights."""
        from dstrun.method.soft.selected import Selected

        attach(model, layers, Selected)

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Keep the optimizer's weight decay off the prunable weights: the loss has it."""
        stored = [module.parametrizations["weight"].original for _, module in prunable(model)]  # type: ignore[index]
        return grouped(model, weight_decay, stored, 0.0)  # type: ignore[arg-type]

    def procedure(self, setting: Setting) -> Procedure:
        """Choose A and B for the first step."""
        return Refreshing(setting, self)

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
        interval = max(1, in_proportion(self.refresh_steps, RECIPE_STEPS, total))
        return range(interval, self.last(total), interval)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict 2 f_A + f_B a step until exploration ends, then 3 f_A."""
        before = 0
        for step in (*self.refreshes(total), self.last(total)):
            yield step - before, ProductCounts.of(counts, self.reached(sizes, counts))
            before = step
        yield total - before, ProductCounts.of(counts)


class Refreshing(Procedure):
    """Refreshes A and B after the optimizer's step, from the dense store: a weight enters A with its stored value.

    When exploration ends, with the run at the latest, the store outside A is dropped and A becomes the topology.
    """

    def __init__(self, setting: Setting, method: TopKAST) -> None:
        from dstrun.method.soft.selected import Selected

        assert setting.counts is not None
        self.setting, self.method = setting, method
        self.layers: list[DenseLayer] = list(setting.layers)  # type: ignore[arg-type]
        self.chosen = [attached(layer, Selected) for layer in self.layers]
        self.active = list(setting.counts)
        self.sizes = [layer.topology.size for layer in self.layers]
        self.reached = method.reached(self.sizes, self.active)
        self.refreshes, self.last = method.refreshes(setting.total_steps), method.last(setting.total_steps)
        self.ended = False
        for index, layer in enumerate(self.layers):
            layer.ever.zero_()
            self._choose(index)

    def updates_at(self, step: int) -> bool:
        """Return whether masks are refreshed at a step, or exploration ends."""
        return step in self.refreshes or step == self.last

    def penalty(self, step: int) -> Tensor | None:
        """Return the exploration loss."""
        if not self.method.exploration_decay:
            return None
        terms = []
        for layer, chosen, active, size in zip(self.layers, self.chosen, self.active, self.sizes, strict=True):
            factor = torch.where(chosen.active, 1.0, chosen.reached * (size / active))
            terms.append((layer.weight.square() * factor).sum())
        return self.method.exploration_decay / 2 * torch.stack(terms).sum()

    def after_step(self, step: int) -> Update | None:
        """Choose A and B anew; or end exploration."""
        if not self.updates_at(step):
            return None
        if step == self.last:
            self.ended = True
            for chosen in self.chosen:
                chosen.reached.copy_(chosen.active)
            changes = settle(self.layers, [chosen.active for chosen in self.chosen], self.setting.strict)
        else:
            changes = self._refresh()
        return Update(step, Cost.NONE, False, 0, changes)

    def products(self) -> ProductCounts:
        """Count A, and B for weight gradients."""
        return ProductCounts.of(self.active, self.active if self.ended else self.reached)

    def state(self) -> dict[str, Any]:
        """Return whether exploration has ended; the masks are the network's buffers."""
        return {"ended": self.ended}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.ended = state["ended"]

    def _refresh(self) -> list[LayerUpdate]:
        """Choose A and B of every layer anew, and read once what has come of it."""
        entered = [self._choose(index) for index in range(len(self.layers))]
        ever = [layer.ever.count_nonzero() for layer in self.layers]
        read = zip(*torch.stack([*entered, *ever]).view(2, -1).tolist(), strict=True)
        layers = zip(self.layers, self.sizes, self.active, self.reached, read, strict=True)
        return [LayerUpdate(x.name, a, new, new, b - a, seen / size) for x, size, a, b, (new, seen) in layers]

    def _choose(self, index: int) -> Tensor:
        """Choose A and B of a layer; give how many weights entered A, () int64."""
        layer, chosen, active, reached = self.layers[index], self.chosen[index], self.active[index], self.reached[index]
        before, trained = chosen.active.clone(), chosen.reached.clone()
        chosen.choose(layer, active, reached)
        clear_state(layer, chosen.reached & trained)
        return (chosen.active & ~before).count_nonzero()


def clear_state(layer: DenseLayer, kept: Tensor) -> None:
    """Zero the optimizer's state of all weights but those kept: no momentum moves them, and they start anew."""
    for tensor in carried(layer, grows=True).values():
        tensor.masked_fill_(~kept, 0)
