"""Tells everyone who follows a run what happened: its files, Weights & Biases, the terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dstrun.progress import Progress
from dstrun.record.folder import RunFolder
from dstrun.record.wandb import Mirror

if TYPE_CHECKING:
    from dstrun.method.procedure import Update

HEARTBEAT_SECONDS = 10


class Journal:
    """Writes a run as it goes; the files are the truth, the others mirror them."""

    def __init__(self, folder: RunFolder, mirror: Mirror, progress: Progress) -> None:
        self.folder, self.mirror, self.progress = folder, mirror, progress
        self._beat = 0.0

    def step(self, step: int, updates: list[Update]) -> None:
        """Note a step's updates; refresh the heartbeat now and then."""
        for update in updates:
            rows = [{"step": step, **vars(change)} for change in update.changes]
            self.folder.topology.append(rows)
        self.progress.step(step)
        if time.monotonic() - self._beat > HEARTBEAT_SECONDS:
            self.folder.status(state="running")
            self._beat = time.monotonic()

    def row(self, row: dict[str, Any]) -> None:
        """Note an epoch's row; before the checkpoint, so that a kill between the two repeats the epoch."""
        self.folder.metrics.append([row])

    def epoch(self, row: dict[str, Any], densities: dict[str, float]) -> None:
        """Tell that an epoch is done and saved; the density of every sparse layer goes to W&B."""
        epochs = self.progress.epochs
        self.folder.status(
            state="running",
            epoch=row["epoch"],
            epochs=epochs,
            top1=row["top1"],
            epoch_seconds=row["seconds"],
            eta_seconds=row["seconds"] * (epochs - row["epoch"]),
            peak_bytes=row["peak_bytes"],
        )
        shown = {key: value for key, value in row.items() if key not in ("step", "split")}
        self.mirror.log(shown | {f"density/{name}": value for name, value in densities.items()}, step=row["step"])
        self.progress.epoch(row)


class Silence(Journal):
    """Tells nobody: of several processes that train one run together the first does."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def step(self, step: int, updates: list[Update]) -> None:
        """Leave it to the first."""

    def row(self, row: dict[str, Any]) -> None:
        """Leave it to the first."""

    def epoch(self, row: dict[str, Any], densities: dict[str, float]) -> None:
        """Leave it to the first."""
