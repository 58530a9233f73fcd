"""The largest weights are used, more are trained: the procedure of ``TopKAST``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer
from dstrun.method.procedure import Change, Procedure, Products, Setting, Update
from dstrun.method.soft.attach import attached, settle
from dstrun.method.soft.selected import Selected, clear_state

if TYPE_CHECKING:
    from dstrun.method.soft.topkast import TopKAST


class Exploring(Procedure):
    """Refreshes A and B after the optimizer's step, from the dense store: a weight enters A with its stored value.

    When exploration ends, with the run at the latest, the store outside A is dropped and A becomes the topology.
    """

    def __init__(self, setting: Setting, method: TopKAST) -> None:
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

    def products(self) -> Products:
        """Count A, and B for weight gradients."""
        return Products.of(self.active, self.active if self.ended else self.reached)

    def state(self) -> dict[str, Any]:
        """Return whether exploration has ended; the masks are the network's buffers."""
        return {"ended": self.ended}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.ended = state["ended"]

    def _refresh(self) -> list[Change]:
        """Choose A and B of every layer anew, and read once what has come of it."""
        entered = [self._choose(index) for index in range(len(self.layers))]
        ever = [layer.ever.count_nonzero() for layer in self.layers]
        read = zip(*torch.stack([*entered, *ever]).view(2, -1).tolist(), strict=True)
        layers = zip(self.layers, self.sizes, self.active, self.reached, read, strict=True)
        return [Change(x.name, a, new, new, b - a, seen / size) for x, size, a, b, (new, seen) in layers]

    def _choose(self, index: int) -> Tensor:
        """Choose A and B of a layer; give how many weights entered A, () int64."""
        layer, chosen, active, reached = self.layers[index], self.chosen[index], self.active[index], self.reached[index]
        before, trained = chosen.active.clone(), chosen.reached.clone()
        chosen.choose(layer, active, reached)
        clear_state(layer, chosen.reached & trained)
        return (chosen.active & ~before).count_nonzero()
