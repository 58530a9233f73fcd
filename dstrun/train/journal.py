"""Report the events of a run to its files, its trackers and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dstrun.record.folder import RunFolder
from dstrun.system.progress import Progress
from dstrun.tracker.page import history
from dstrun.tracker.protocol import Trackers

if TYPE_CHECKING:
    from dstrun.method.update import Update


class Journal:
    """Writes a run as it goes; the files are the truth, the others mirror them."""

    def __init__(self, folder: RunFolder, trackers: Trackers, progress: Progress) -> None:
        self.folder, self.trackers, self.progress = folder, trackers, progress

    def step(self, step: int, updates: list[Update]) -> None:
        """Note a step's updates."""
        if updates:
            self.folder.check()
        for update in updates:
            rows = [{"step": step, **vars(change)} for change in update.changes]
            self.folder.topology.append(rows)
        self.progress.step(step)

    def epoch(self, row: dict[str, Any], densities: dict[str, float]) -> None:
        """Report that an epoch is done; the density of every sparse layer goes to the trackers."""
        self.folder.check()
        self.folder.metrics.append([row])
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
        self.trackers.log(history(row, densities), step=row["step"])
        self.progress.epoch(row)


class Silence(Journal):
    """Tells nobody: of several processes that train one run together the first does."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def step(self, step: int, updates: list[Update]) -> None:
        """Leave it to the first."""

    def epoch(self, row: dict[str, Any], densities: dict[str, float]) -> None:
        """Leave it to the first."""
