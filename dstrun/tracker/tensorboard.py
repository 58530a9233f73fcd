"""A run in TensorBoard's event files: the only module that imports tensorboard, and only where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dstrun.tracker.page import Page, Table, leaves
from dstrun.tracker.protocol import Tracker, need


class Mirror(Tracker):
    """A run in ``tensorboard/`` of its folder; each start adds an event file, which continues those before it."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.next = _shown(folder) + 1
        # What a killed process has shown of the step after the last whole one, readers drop.
        self._writer = SummaryWriter(str(folder), purge_step=self.next or None)

    @staticmethod
    def decide(config: Mapping[str, Any]) -> tuple[str, str]:
        """Check that TensorBoard is installed; files need no server."""
        need("tensorboard", "tensorboard", "tensorboard")
        return "offline", f"tensorboard --logdir {config['results']}"

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page) -> Mirror:
        """Start to show a run with its configuration as a text, or continue."""
        made = cls(folder / "tensorboard")
        if made.next == 0:
            rows = [[key, value] for key, value in leaves({"group": page.group, **page.config}, ".")]
            made._writer.add_text("config", _markdown(Table(["setting", "value"], rows)), 0)
        return made

    def log(self, values: dict[str, Any], step: int) -> None:
        """Write the numbers of a step to disk, ``epoch`` last: with it the step is whole."""
        for key in sorted(values, key="epoch".__eq__):
            self._writer.add_scalar(key, values[key], step)
        self._writer.flush()

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Write final numbers as scalars of the last step, all else as texts, and close the file."""
        last = max(0, self.next - 1)
        for key, value in summary.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(key, value, last)
            else:
                self._writer.add_text(key, _markdown(value) if isinstance(value, Table) else str(value), last)
        self._writer.close()


def _shown(folder: Path) -> int:
    """Return the last step that is whole in the event files of a folder; -1 where there is none."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not any(folder.glob("*.tfevents.*")):
        return -1
    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return max(event.step for event in found.Scalars("epoch")) if "epoch" in found.Tags()["scalars"] else -1


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
