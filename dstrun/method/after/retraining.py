"""Retraining at the last learning rate."""

from __future__ import annotations

from dstrun.method.finetuning import held
from dstrun.method.procedure import Setting
from dstrun.method.repeated import Repeated, Score
from dstrun.method.rounds import Rounds


class Finetuning(Repeated):
    """Rounds at the learning rate with which the dense training ended, or the last that trains (``held``)."""

    def __init__(self, method: Rounds, setting: Setting, score: Score, least: float) -> None:
        super().__init__(method, setting, score)
        self.held = held(setting, least)

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Stay at one step of the dense training's schedule."""
        return step if step < self.dense else self.held, self.dense
