"""Adam whose bias correction counts the steps of each connection since it was grown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

each: Any = torch
"""Operations on lists of tensors, documented but not exported: on a GPU one kernel does many tensors."""

AGE = "age"
"""The state that counts, of the weight's shape, so that rewiring carries it over and starts it at 0 as the moments."""

BLOCK = 1 << 18
"""Numbers of each tensor that a CPU looks at together: what a step needs besides stays small."""


class AgedAdam(torch.optim.Adam):
    """``torch.optim.Adam``, bit for bit until connections grow; from then on a weight that grows has ages of its own.

    The moments of a grown connection start at 0. Were they corrected by the steps of the whole weight, its first update
    would be (1 - beta1) / sqrt(1 - beta2) times the learning rate, 3.2 times with the usual betas, and the next ones
    more. Ages cost 2 bytes a connection, or 4 where the second moment remembers more than 32,767 steps.

    Args:
        parameters: or groups of them.
        lr: the learning rate.
        betas: of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled (AdamW: Loshchilov and Hutter 2019), or else a part of the gradient.
        decoupled: which of the two.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = True,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, decoupled_weight_decay=decoupled)

    def before_growth(self, weight: Tensor) -> None:
        """Count the steps of every connection of a weight from now on; those there are have seen all its steps.

        See ``dstrun.layer.interface.carried``.
        """
        state = self.state.get(weight)
        if state and AGE not in state:
            kind = age_type(next(g["betas"] for g in self.param_groups if any(p is weight for p in g["params"])))
            start = state["step"].clamp(max=torch.iinfo(kind).max).to(kind)
            state[AGE] = torch.zeros_like(state["exp_avg"], dtype=kind).add_(start)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; ages stay whole numbers, of which torch would make floats."""
        super().load_state_dict(state_dict)
        names = [name for group in state_dict["param_groups"] for name in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for name, parameter in zip(names, parameters, strict=True):
            if AGE in (saved := state_dict["state"].get(name, {})):
                self.state[parameter][AGE] = saved[AGE].to(parameter.device, copy=True)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        """Update the parameters of a group that have ages, and leave the others to torch's step."""
        aged = [p for p in group["params"] if AGE in self.state.get(p, ())]
        rows = [self._row(p) for p in aged if p.grad is not None]
        if rows and rows[0][0].is_cuda:
            update(group, rows)
        else:
            for row in rows:
                for part in zip(*(tensor.split(BLOCK) for tensor in row), strict=True):
                    update(group, [part])
        ids = {id(p) for p in aged}
        return super()._init_group(group | {"params": [p for p in group["params"] if id(p) not in ids]}, *lists)

    def _row(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """Return what a step needs of a parameter with ages, each as a vector: itself, gradient, moments and ages."""
        state = self.state[parameter]
        state["step"] += 1
        stored = (state["exp_avg"], state["exp_avg_sq"], state[AGE])
        assert parameter.grad is not None
        return parameter.detach().view(-1), parameter.grad.flatten(), *(tensor.view(-1) for tensor in stored)


def update(group: dict[str, Any], rows: Sequence[tuple[Tensor, ...]]) -> None:
    """Step the weights that have ages, all of them at once in each operation.

    Args:
        group: of the optimizer, with its settings.
        rows: weight, gradient, first and second moment and ages of each, all of one shape.
    """
    lr, eps, decay, (beta1, beta2) = group["lr"], group["eps"], group["weight_decay"], group["betas"]
    weights, gradients, means, squares, ages = (list(column) for column in zip(*rows, strict=True))
    if decay and group["decoupled_weight_decay"]:
        each._foreach_mul_(weights, 1 - lr * decay)
    elif decay:
        gradients = each._foreach_add(gradients, weights, alpha=decay)
    each._foreach_lerp_(means, gradients, 1 - beta1)
    each._foreach_mul_(squares, beta2)
    each._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    each._foreach_clamp_max_(ages, torch.iinfo(ages[0].dtype).max - 1)
    each._foreach_add_(ages, 1)
    steps = [age.to(torch.promote_types(w.dtype, torch.float32)) for age, w in zip(ages, weights, strict=True)]
    roots = each._foreach_mul(steps, _log(beta2))
    each._foreach_expm1_(roots)  # beta^k - 1, exact where 1 - beta^k is not
    each._foreach_neg_(roots)
    each._foreach_sqrt_(roots)
    denominators = each._foreach_sqrt(squares)
    each._foreach_div_(denominators, roots)
    each._foreach_add_(denominators, eps)
    each._foreach_mul_(steps, _log(beta1))
    each._foreach_expm1_(steps)
    each._foreach_mul_(denominators, steps)
    each._foreach_addcdiv_(weights, means, denominators, lr)  # plus, as beta1^k - 1 is negative


def age_type(betas: tuple[float, float]) -> torch.dtype:
    """Return the smallest type that counts until no correction differs from 1 in single precision; it stops there."""
    longest = torch.iinfo(torch.int16).max
    return torch.int16 if max(betas) ** longest < 2**-24 else torch.int32


def _log(beta: float) -> float:
    return math.log(beta) if beta else -math.inf
