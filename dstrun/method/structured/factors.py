"""Factors of channels, sparse by a penalty: accelerated proximal gradient.

Shape letter: C channels.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from dstrun.grow.criterion import Cost
from dstrun.method.procedure import Procedure, Setting, Update
from dstrun.method.pruning import guard
from dstrun.method.structured.channels import Channels, Pair
from dstrun.option import ConfigError
from dstrun.progress import say

log = logging.getLogger("dstrun")


class Factors(Procedure):
    """Trains a factor for every channel that can be removed, until those at zero are.

    Args:
        setting: of the run; its layers have every connection.
        gamma: of the penalty.
        momentum: of the factors.
        last: the step after which channels are removed.

    Raises:
        ConfigError: the network has no channels that can be removed.
    """

    def __init__(self, setting: Setting, gamma: float, momentum: float, last: int) -> None:
        self.setting, self.gamma, self.momentum, self.last = setting, gamma, momentum, last
        self.channels = Channels(setting.model, setting.layers)
        if not self.channels.pairs:
            raise ConfigError("method=sss makes no sense with this network, which has no channels that can be removed")
        self.factors = [self._attach(pair) for pair in self.channels.pairs]
        self.velocity = [torch.zeros_like(factor) for factor in self.factors]
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
        """Say whether channels are removed after a step."""
        return step == self.last

    def after_step(self, step: int) -> Update | None:
        """Move the factors; at the end remove the channels of those at zero."""
        if step <= self.last:
            rate = self.setting.optimizer.param_groups[0]["lr"]
            for index, factor in enumerate(self.factors):
                assert factor.grad is not None
                moved, velocity = proximal_step(
                    factor.detach(), factor.grad, self.velocity[index], rate, self.gamma, self.momentum
                )
                factor.detach().copy_(moved)
                self.velocity[index] = velocity
        for factor in self.factors:  # no parameters of the optimizer, which would clear them
            factor.grad = None
        return self._remove(step) if self.updates_at(step) else None

    def _remove(self, step: int) -> Update:
        before = [layer.count for layer in self.setting.layers]
        dropped = [(factor == 0).nonzero().flatten() for factor in self.factors]
        pairs = self.channels.pairs
        guard(
            [p.producer for p, out in zip(pairs, dropped, strict=True) if len(out) == p.channels], self.setting.strict
        )
        if not any(len(out) for out in dropped):
            log.warning("no factor has become zero by step %d: raise method.gamma or train longer", step)
        for pair, out in zip(pairs, dropped, strict=True):
            self.channels.remove(pair, out)
        return Update(step, Cost.NONE, False, 0, self.channels.changes(before))

    def state(self) -> dict[str, Any]:
        """Give the factors' velocities; they themselves are parameters of the network."""
        return {"velocity": self.velocity}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with them."""
        self.velocity = [v.to(f.device) for v, f in zip(state["velocity"], self.factors, strict=True)]


def proximal_step(
    factor: Tensor, gradient: Tensor, velocity: Tensor, rate: float, gamma: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """Take an accelerated proximal gradient step, in the form in which the look-ahead point is stored.

    z = S(f - rate g), S(x) = sign(x) max(|x| - rate gamma, 0); v' = z - f + momentum v; f' = z + momentum v'.

    Args:
        factor: (C,) f, the point at which the gradient was taken.
        gradient: (C,) g.
        velocity: (C,) v.
        rate: the learning rate.
        gamma: of the penalty.
        momentum: between 0 and 1.

    Returns:
        f' and v'. A factor that z leaves at 0 twice in a row is exactly 0, and so is its velocity.
    """
    plain = factor - rate * gradient
    z = plain.sign() * (plain.abs() - rate * gamma).clamp(min=0)
    velocity = z - factor + momentum * velocity
    return z + momentum * velocity, velocity
