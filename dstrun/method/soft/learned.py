"""Methods that learn a threshold for each layer, so that training determines the sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Within, option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import DenseLayer, SparseLayer
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.soft.annealing import Annealing
from dstrun.method.soft.attach import attach, attached, but, nonzero, settle
from dstrun.method.update import ProductCounts, Update
from dstrun.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@option
class Learned(Method):
    """Settings of w~ = sign(w) relu(|w| - sigmoid(s)), with one trainable s per layer.

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
        from dstrun.method.soft.threshold import Threshold

        attach(model, layers, lambda weight: Threshold(weight, self.s_init, self.reached(weight.numel())))

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Return the parameters without the thresholds, which have their own optimizer."""
        from dstrun.method.soft.threshold import Threshold

        thresholds = [module.s for module in model.modules() if isinstance(module, Threshold)]
        return but(super().parameters(model, weight_decay), thresholds)

    def procedure(self, setting: Setting) -> Procedure:
        """Start with every weight."""
        return Thresholding(setting, self)

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict at most what it costs: dense training, for what training prunes is not known before."""
        yield total, ProductCounts.of(sizes)
        yield 0, ProductCounts.of(sizes)


class Thresholding(Annealing):
    """Sets alpha before every step; with the last step what is active becomes the topology."""

    def __init__(self, setting: Setting, method: Learned) -> None:
        from dstrun.method.soft.threshold import Threshold

        self.setting, self.method = setting, method
        self.layers: list[DenseLayer] = list(setting.layers)  # type: ignore[arg-type]
        self.modules = [attached(layer, Threshold) for layer in self.layers]
        sizes = [layer.topology.size for layer in self.layers]
        reached = [method.reached(size) for size in sizes]
        self.reached = [size if r is None else r for size, r in zip(sizes, reached, strict=True)]
        self.least = torch.tensor(self.reached).to(self.modules[0].s.device)
        group = {"params": [threshold.s for threshold in self.modules], "initial_lr": method.threshold_lr}
        decay = method.decay(setting.total_steps)
        self.own = [torch.optim.SGD([group], method.threshold_lr, method.threshold_momentum, weight_decay=decay)]
        self.await_step(1)

    def updates_at(self, step: int) -> bool:
        """Return whether the topology is settled at a step."""
        return step == self.setting.total_steps

    def after_step(self, step: int) -> Update | None:
        """Set alpha for the next step; prune for good after the last."""
        self.await_step(step + 1)
        if step < self.setting.total_steps:
            return None
        masks = [layer.module.weight.detach() != 0 for layer in self.layers]
        return Update(step, Cost.NONE, False, 0, settle(self.layers, masks, self.setting.strict))

    def products(self) -> ProductCounts:
        """Count the weights above their thresholds, and those that have gradients."""
        active = nonzero(self.layers)
        if not self.alpha:
            return ProductCounts.of(active)
        return ProductCounts.of(active, [max(a, r) for a, r in zip(active, self.reached, strict=True)])

    def counted(self) -> Tensor:
        """Count as ``products`` does, what the forward pass has used."""
        active = torch.stack([threshold.active for threshold in self.modules])
        if not self.alpha:
            return active.expand(3, -1)
        return torch.stack([active, active, torch.maximum(active, self.least)])

    def state(self) -> dict[str, Any]:
        """Return the step that comes next and the thresholds' momentum; thresholds are the network's parameters."""
        return super().state() | {"own": self.own[0].state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue before a checkpoint's next step."""
        super().load_state(state)
        self.own[0].load_state_dict(state["own"])
