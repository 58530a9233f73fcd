"""Gradient annealing: the factor alpha on gradients of pruned weights (Kundu et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from dstrun.config.option import OneOf, Share, Within, option
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting


@option
class Annealed(Method):
    """Settings of methods whose pruned weights get alpha times their gradient.

    With p the share of training that has passed and c(p) by ``alpha_curve``, alpha is ``alpha`` c(p) until
    ``alpha_end``, a share of training, and 0 from there on.
    """

    alpha: Annotated[float, Within(0, 1)] = 0.75
    alpha_curve: Annotated[str, OneOf("sigmoid_cosine", "cosine", "sigmoid", "linear", "fixed")] = "sigmoid_cosine"
    alpha_end: Share = 0.9

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"alpha_curve"} if self.alpha == 0 else set()

    def last(self, total: int) -> int:
        """Return the last step with alpha above 0, in a run of ``total``."""
        return max(1, round(self.alpha_end * total))

    def alpha_at(self, step: int, total: int) -> float:
        """Return alpha at a step, counted from 1, of ``total``."""
        return self.alpha * curve(self.alpha_curve, (step - 1) / total) if step <= self.last(total) else 0.0


class Annealing(Procedure):
    """Sets alpha for the step that comes next in the modules that compute the weights.

    Attributes:
        setting: of the run.
        method: says what alpha is at a step.
        modules: those that compute the weights.
    """

    setting: Setting
    method: Any
    modules: Sequence[Any]

    def await_step(self, step: int) -> None:
        """Set alpha as it is at a step."""
        self.next, self.alpha = step, self.method.alpha_at(step, self.setting.total_steps)
        for module in self.modules:
            module.alpha = self.alpha

    def state(self) -> dict[str, Any]:
        """Return the step that comes next; the rest are the network's parameters and buffers."""
        return {"next": self.next}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue before a checkpoint's next step."""
        self.await_step(state["next"])


def curve(name: str, p: float) -> float:
    """Return c(p), from about 1 at p = 0 to about 0 at p = 1; ``fixed`` stays at 1."""
    cosine = (1 + math.cos(math.pi * p)) / 2
    sigmoid = 1 - 1 / (1 + math.exp(6 - 12 * p))
    curves = {
        "sigmoid_cosine": max(cosine, sigmoid), "cosine": cosine, "sigmoid": sigmoid, "linear": 1 - p, "fixed": 1.0,
    }  # fmt: skip
    return curves[name]
