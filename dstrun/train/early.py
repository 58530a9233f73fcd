"""Early stopping with patience (Prechelt 1998)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EarlyStop:
    """Whether top-1 on validation images has not risen for so many epochs.

    Args:
        patience: how many epochs; ``None`` for a training that goes on to its end.
        budget: active connections; with more than these it goes on, as the method has not pruned what it was asked to.

    Attributes:
        top1: the highest so far, in percent.
        epoch: after which it was reached; 0 before the first.
        reached: whether training ends now.
    """

    patience: int | None = None
    budget: int | None = None
    top1: float = -1.0
    epoch: int = 0
    reached: bool = False

    def look(self, epoch: int, top1: float, active: int) -> None:
        """See how an epoch ended.

        Args:
            epoch: counted from 1.
            top1: in percent.
            active: connections of all prunable layers.
        """
        if top1 > self.top1:
            self.top1, self.epoch = top1, epoch
        waited = self.patience is not None and epoch - self.epoch >= self.patience
        self.reached = waited and (self.budget is None or active <= self.budget)

    def record(self, epoch: int) -> dict[str, float] | None:
        """Return the record's ``early_stop`` group of a run that ended after an epoch; ``None`` without patience."""
        return None if self.patience is None else {"epoch": epoch, "best_epoch": self.epoch, "best_top1": self.top1}

    def state(self) -> dict[str, float]:
        """Return what a checkpoint needs."""
        return {"top1": self.top1, "epoch": self.epoch, "reached": self.reached}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint's state."""
        self.top1, self.epoch, self.reached = state["top1"], int(state["epoch"]), bool(state["reached"])
