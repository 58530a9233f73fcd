"""Retraining at the last learning rate."""

from __future__ import annotations

from dstrun.method.repeated import Repeated


class Finetuning(Repeated):
    """Rounds at the learning rate with which the dense training ended."""

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Stay at the last step of the dense training's schedule."""
        return min(step, self.dense - 1), self.dense
