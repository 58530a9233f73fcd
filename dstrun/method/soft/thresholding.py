"""Thresholds that are trained beside the weights: the procedure of ``STR`` and ``AutoSparse``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer
from dstrun.method.procedure import Procedure, Products, Setting, Update
from dstrun.method.soft.attach import attached, nonzero, settle
from dstrun.method.soft.threshold import Threshold

if TYPE_CHECKING:
    from dstrun.method.soft.learned import Learned


class Thresholding(Procedure):
    """Sets alpha before every step; with the last step what is active becomes the topology."""

    def __init__(self, setting: Setting, method: Learned) -> None:
        self.setting, self.method = setting, method
        self.layers: list[DenseLayer] = list(setting.layers)  # type: ignore[arg-type]
        self.thresholds = [attached(layer, Threshold) for layer in self.layers]
        sizes = [layer.topology.size for layer in self.layers]
        reached = [method.reached(size) for size in sizes]
        self.reached = [size if r is None else r for size, r in zip(sizes, reached, strict=True)]
        self.least = torch.tensor(self.reached).to(self.thresholds[0].s.device)
        group = {"params": [threshold.s for threshold in self.thresholds], "initial_lr": method.threshold_lr}
        decay = method.decay(setting.total_steps)
        self.own = [torch.optim.SGD([group], method.threshold_lr, method.threshold_momentum, weight_decay=decay)]
        self._await(1)

    def updates_at(self, step: int) -> bool:
        """Return whether the topology is settled at a step."""
        return step == self.setting.total_steps

    def after_step(self, step: int) -> Update | None:
        """Set alpha for the next step; prune for good after the last."""
        self._await(step + 1)
        if step < self.setting.total_steps:
            return None
        masks = [layer.module.weight.detach() != 0 for layer in self.layers]
        return Update(step, Cost.NONE, False, 0, settle(self.layers, masks, self.setting.strict))

    def products(self) -> Products:
        """Count the weights above their thresholds, and those that have gradients."""
        active = nonzero(self.layers)
        if not self.alpha:
            return Products.of(active)
        return Products.of(active, [max(a, r) for a, r in zip(active, self.reached, strict=True)])

    def counted(self) -> Tensor:
        """Count as ``products`` does, what the forward pass has used."""
        active = torch.stack([threshold.active for threshold in self.thresholds])
        if not self.alpha:
            return active.expand(3, -1)
        return torch.stack([active, active, torch.maximum(active, self.least)])

    def state(self) -> dict[str, Any]:
        """Return the step that comes next and the thresholds' momentum; thresholds are the network's parameters."""
        return {"next": self.next, "own": self.own[0].state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue before a checkpoint's next step."""
        self._await(state["next"])
        self.own[0].load_state_dict(state["own"])

    def _await(self, step: int) -> None:
        self.next, self.alpha = step, self.method.alpha_at(step, self.setting.total_steps)
        for threshold in self.thresholds:
            threshold.alpha = self.alpha
