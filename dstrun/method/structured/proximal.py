"""Accelerated proximal gradient for the factors of channels, which an L1 penalty makes sparse.

Shape letter: C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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
