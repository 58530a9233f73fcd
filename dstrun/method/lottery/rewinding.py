"""Everything goes back to an early step, less what was pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dstrun.method.procedure import Change, Update
from dstrun.method.repeated import Repeated


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

    def prune(self, step: int, scores: Sequence[Tensor]) -> list[Change]:
        """Go back, then prune by the scores of the trained weights."""
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
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value
