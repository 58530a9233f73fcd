"""Factors of channels, sparse by a penalty: accelerated proximal gradient.

Shape letter: C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dstrun.layer.criterion import Cost
from dstrun.method.procedure import Procedure, Setting, Update
from dstrun.method.pruning import guard
from dstrun.method.structured.channels import Channels, Pair
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError

log = logging.getLogger("dstrun")


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
        self.setting, self.last = setting, last
        self.channels = Channels(setting.model, setting.layers)
        if not self.channels.pairs:
            raise ConfigError("method=sss makes no sense with this network, which has no channels that can be removed")
        self.factors = [self._attach(pair) for pair in self.channels.pairs]
        self.own: list[Optimizer] = [Proximal(self.factors, rate, gamma, momentum)]
        say(f"  {self.channels.said()}")

    def _attach(self, pair: Pair) -> nn.Parameter:
        """Multiply what a pair's last module gives before its activation; the factor is stored with it."""
        module = self.channels.modules[pair.norms[-1] if pair.norms else pair.producer]
        factor = nn.Parameter(torch.ones(pair.channels, device=self.channels.layer[pair.producer].weight.device))
        module.register_parameter("factor", factor)

        def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            shape = (-1,) + (1,) * (output.ndim - 2) if isinstance(module, nn.Conv2d | nn.BatchNorm2d) else (-1,)
            return output * factor.view(shape)

        module.register_forward_hook(scale)
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


class Proximal(Optimizer):
    """Moves factors by ``proximal_step``; a group's ``lr`` is the rate."""

    def __init__(self, factors: Sequence[nn.Parameter], lr: float, gamma: float, momentum: float) -> None:
        settings = {"lr": lr, "initial_lr": lr, "gamma": gamma, "momentum": momentum}
        super().__init__(list(factors), settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move every factor by its gradient."""
        for group in self.param_groups:
            for factor in group["params"]:
                velocity = self.state[factor].get("velocity", torch.zeros_like(factor))
                moved, velocity = proximal_step(
                    factor, factor.grad, velocity, group["lr"], group["gamma"], group["momentum"]
                )
                factor.copy_(moved)
                self.state[factor]["velocity"] = velocity


def proximal_step(
    factor: Tensor, gradient: Tensor, velocity: Tensor, rate: float, gamma: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """Take an accelerated proximal gradient step, in the form in which the look-ahead point is stored.

    z = S(f - rate g), S(x) = sign(x) max(|x| - rate gamma, 0); v' = z - f + momentum v; f' = max(0, z + momentum v'):
    a factor is never negative.

    Args:
        factor: (C,) f, the point at which the gradient was taken.
        gradient: (C,) g.
        velocity: (C,) v.
        rate: the learning rate.
        gamma: of the penalty.
        momentum: between 0 and 1.

    Returns:
        f' and v'.
    """
    plain = factor - rate * gradient
    z = plain.sign() * (plain.abs() - rate * gamma).clamp(min=0)
    velocity = z - factor + momentum * velocity
    return (z + momentum * velocity).clamp(min=0), velocity
