"""SSS: sparse structure selection (Huang and Wang 2018), of channels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Within, option
from dstrun.layer.criterion import Cost
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.pruning import guard
from dstrun.method.update import Update
from dstrun.system.lazy import torch
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from dstrun.method.structured.channels import Pair

log = logging.getLogger("dstrun")


@option
class SSS(Method):
    """Multiply every channel by a factor trained under an L1 penalty; drop those whose factor is zero.

    Factors start at 1, are never negative and minimise L + ``gamma`` sum factor by accelerated proximal gradient (the
    paper's equations 11 to 13), whatever optimizer the weights have: with the initial rate ``factor_lr``, which follows
    the schedule of the weights. At ``end`` (share of training) channels of factor 0 are removed and the other factors
    stay as they are. The final sparsity depends on ``gamma``.
    """

    gamma: Annotated[float, AtLeast(0)] = 0.001
    factor_lr: Annotated[float, Above(0)] = 0.1
    momentum: Annotated[float, Within(0, 1, high_open=True)] = 0.9
    end: Annotated[float, Above(0), Within(0, 1)] = 1.0

    why: ClassVar[str] = "whose sparsity follows from method.gamma"
    start: ClassVar[str] = "all"
    budget: ClassVar[bool] = False
    dense: ClassVar[str] = "which starts dense"
    alone: ClassVar[str] = "which traces channels in a single process"
    exact: ClassVar[bool] = False

    def procedure(self, setting: Setting) -> Procedure:
        """Train factors, drop the zeros."""
        return Factors(
            setting, self.gamma, self.factor_lr, self.momentum, max(1, round(self.end * setting.total_steps))
        )


class Factors(Procedure):
    """Trains a factor for every channel that can be removed, until those at zero are.

    Args:
        setting: of the run; its layers have every connection.
        gamma: of the penalty.
        rate: of the factors at first; it follows the schedule of the weights'.
        momentum: of the factors.
        last: the step after which channels are removed.

    Raises:
        ConfigError: the network has no channels that can be removed.
    """

    def __init__(self, setting: Setting, gamma: float, rate: float, momentum: float, last: int) -> None:
        from dstrun.method.structured.channels import Channels
        from dstrun.method.structured.proximal import Proximal

        self.setting, self.last = setting, last
        self.channels = Channels(setting.model, setting.layers)
        if not self.channels.pairs:
            raise ConfigError("method=sss makes no sense with this network, which has no channels that can be removed")
        self.hooks: list[Any] = []
        self.factors = [self._attach(pair) for pair in self.channels.pairs]
        self.own: list[Optimizer] = [Proximal(self.factors, rate, gamma, momentum)]
        say(f"  {self.channels.summary()}")

    def _attach(self, pair: Pair) -> nn.Parameter:
        """Multiply what a pair's last module gives before its activation; the factor is stored with it."""
        module = self.channels.modules[pair.norms[-1] if pair.norms else pair.producer]
        device = self.channels.layer[pair.producer].weight.device
        factor = torch.nn.Parameter(torch.ones(pair.channels, device=device))
        module.register_parameter("factor", factor)
        spatial = isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d)

        def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            shape = (-1,) + (1,) * (output.ndim - 2) if spatial else (-1,)
            return output * factor.view(shape)

        self.hooks.append(module.register_forward_hook(scale))
        return factor

    def updates_at(self, step: int) -> bool:
        """Return whether channels are removed after a step."""
        return step == self.last

    def after_step(self, step: int) -> Update | None:
        """Remove the channels of factors at zero after the last step that moves them; from then on they stay."""
        if not self.updates_at(step):
            return None
        update = self._remove(step)
        self._stop()
        return update

    def _stop(self) -> None:
        self.own = []
        for factor in self.factors:
            factor.grad = None
            factor.requires_grad_(False)

    def release(self) -> None:
        """Multiply the factors into the weights and biases of the modules whose outputs they scale."""
        for pair, factor, hook in zip(self.channels.pairs, self.factors, self.hooks, strict=True):
            module: Any = self.channels.modules[pair.norms[-1] if pair.norms else pair.producer]
            hook.remove()
            if module.weight is None:
                raise ConfigError(f"{pair.norms[-1]} has no affine weights that could absorb the factors of sss")
            factor, weight = factor.detach(), module.weight.detach()
            scaled = weight * factor.view(-1, *(1,) * (weight.dim() - 1))
            if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
                module.weight = scaled
            else:
                weight.copy_(scaled)
            if module.bias is not None:
                module.bias.detach().mul_(factor)

    def _remove(self, step: int) -> Update:
        before = [layer.count for layer in self.setting.layers]
        dropped = [(factor == 0).nonzero().flatten() for factor in self.factors]
        pairs = self.channels.pairs
        emptied = [p.producer for p, out in zip(pairs, dropped, strict=True) if len(out) == p.channels]
        guard(emptied, len(self.setting.layers), self.setting.strict)
        if not any(len(out) for out in dropped):
            log.warning("no factor has become zero by step %d: raise method.gamma or train longer", step)
        for pair, out in zip(pairs, dropped, strict=True):
            self.channels.remove(pair, out)
        return Update(step, Cost.NONE, False, 0, self.channels.changes(before))

    def state(self) -> dict[str, Any]:
        """Return the factors' velocities, while they move; they themselves are parameters of the network."""
        return {"own": [optimizer.state_dict() for optimizer in self.own]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with them."""
        for optimizer, kept in zip(self.own, state["own"], strict=False):
            optimizer.load_state_dict(kept)
        if not state["own"]:
            self._stop()
