"""Lottery tickets: iterative magnitude pruning with rewinding (Frankle and Carbin 2019, Frankle et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, Within, option
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.repeated import Repeated, by_criterion
from dstrun.method.rounds import Rounds
from dstrun.method.update import LayerUpdate, Update
from dstrun.system.lazy import torch
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@option
class LTH(Rounds):
    """Train, prune the connections of lowest |w|, rewind the others to their values after step k, and train again.

    The network is rewound to step k (weights, biases, norms and their statistics), and so is the learning rate;
    momentum starts at 0, as in open_lth. k ends the epoch nearest to the share ``rewind`` of a training; 0 is the
    initialization.

    Every level prunes ``prune_share`` of the remaining connections, the last one fewer, so that ``sparsity`` is met
    exactly. With ``levels`` (L) there are L levels of equal shares: level l leaves the density (1 - s)^(l / L). With
    ``sparsities`` the levels are those below ``sparsity``, and ``sparsity`` itself.
    """

    levels: Annotated[int, AtLeast(1)] | None = None
    prune_share: Annotated[float, Within(0, 1, low_open=True, high_open=True)] = 0.2
    sparsities: tuple[Annotated[float, Within(0, 1, low_open=True, high_open=True)], ...] = ()
    rewind: Annotated[float, Within(0, 1, high_open=True)] = 0.0

    parts: ClassVar[tuple[str, ...]] = ("prune",)
    why: ClassVar[str] = "which prunes between trainings"

    def __post_init__(self) -> None:
        if self.levels is not None and self.sparsities:
            raise ConfigError("method.levels and method.sparsities both set the levels: set one of them")
        if list(self.sparsities) != sorted(set(self.sparsities)):
            raise ConfigError(f"method.sparsities={list(self.sparsities)} must increase")

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"prune_share"} if self.levels is not None or self.sparsities else set()

    def shares(self, sparsity: float) -> list[float]:
        """Return every level's place on the way to the budget, in the logarithm of the density."""
        if sparsity == 0:
            return []
        whole = math.log(1 - sparsity)
        if self.levels is not None:
            return [level / self.levels for level in range(1, self.levels + 1)]
        if self.sparsities:
            return [math.log(1 - s) / whole for s in self.sparsities if s < sparsity] + [1.0]
        step = math.log(1 - self.prune_share) / whole
        return [level * step for level in range(1, math.ceil(1 / step - 1e-9))] + [1.0]

    def round_epochs(self, epochs: int) -> int:
        """Return the length of a level: what is left of a training after step k."""
        return epochs - min(round(self.rewind * epochs), epochs - 1)

    def procedure(self, setting: Setting) -> Procedure:
        """Start with the dense network."""
        return Rewinding(self, setting, by_criterion)


class Rewinding(Repeated):
    """Rounds that start from the network after step k, the surviving connections of it, and from no momentum."""

    early: dict[str, Any] | None = None
    """State dictionary of the network after step k, with pruned connections at 0."""

    def before_step(self, step: int) -> Update | None:
        """Keep the state after step k; prune and rewind where a level starts."""
        if step in self.remembered():
            self._keep()
        return super().before_step(step)

    def remembered(self) -> list[int]:
        """List the step whose start levels go back to."""
        return [self.dense - self.length + 1]

    def prune(self, step: int, scores: Sequence[Tensor]) -> list[LayerUpdate]:
        """Rewind, then prune by the scores of the trained weights."""
        assert self.early is not None
        setting, optimizer = self.setting, self.setting.optimizer
        setting.model.load_state_dict(self.early)
        optimizer.state.clear()
        changes = super().prune(step, scores)
        self._keep()  # the next level goes back to less, and training does not touch the copy
        return changes

    def _keep(self) -> None:
        """Copy the network's state to the processor's memory."""
        self.early = _copied(self.setting.model.state_dict())

    def state(self) -> dict[str, Any]:
        """Return the state that levels go back to, once there is one."""
        return {"early": self.early}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with the state that levels go back to."""
        self.early = _copied(state["early"])


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value
