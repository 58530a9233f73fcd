"""Shared by methods that prune a trained network."""

from __future__ import annotations

from typing import Annotated

from dstrun.config.option import AtLeast, OneOf, Share, Within, option
from dstrun.method.finetuning import held
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.repeated import Repeated, Score
from dstrun.method.rounds import Rounds


@option
class Retrained(Rounds):
    """Train densely, then prune and retrain, ``rounds`` times; round r of R leaves the density (1 - s)^(r / R).

    A round retrains for ``retrain_share`` of a training's epochs, at least one. ``retrain=rewind`` replays as long a
    tail of the learning rate's schedule (Renda et al. 2020); ``retrain=finetune`` keeps its last learning rate, or the
    last that is at least ``finetune_lr`` times the first.
    """

    rounds: Annotated[int, AtLeast(1)] = 1
    retrain: Annotated[str, OneOf("rewind", "finetune")] = "rewind"
    finetune_lr: Share = 0.01
    retrain_share: Annotated[float, Within(0, 1, low_open=True)] = 0.6

    def shares(self, sparsity: float) -> list[float]:
        """Prune the same share of what is left in every round."""
        return [r / self.rounds for r in range(1, self.rounds + 1)]

    def round_epochs(self, epochs: int) -> int:
        """Return the length of a retraining."""
        return max(1, round(self.retrain_share * epochs))

    def procedure(self, setting: Setting) -> Procedure:
        """Start with the dense training."""
        if self.retrain == "rewind":
            return Repeated(self, setting, self.score())
        return Finetuning(self, setting, self.score(), self.finetune_lr)

    def score(self) -> Score:
        """Return what scores the connections; the lowest go."""
        raise NotImplementedError


class Finetuning(Repeated):
    """Rounds at the learning rate with which the dense training ended, or the last that trains (``held``)."""

    def __init__(self, method: Rounds, setting: Setting, score: Score, least: float) -> None:
        super().__init__(method, setting, score)
        self.held = held(setting, least)

    def rate_at(self, step: int, total: int) -> tuple[int, int]:
        """Stay at one step of the dense training's schedule."""
        return step if step < self.dense else self.held, self.dense
