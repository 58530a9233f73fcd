"""What a service that shows runs has to offer: five calls. Another one is a module like ``wandb``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from dstrun.tracker.page import Page


class Unsent(Exception):
    """A tracker does not take a run, or not all of it; the message says why."""


class Tracker(Protocol):
    """A run as a service shows it. No failure of the service stops a training, unless it was opened ``strict``.

    Attributes:
        next: the first step that is taken; those before it are there already.
    """

    next: int

    @staticmethod
    def decide(wanted: str) -> tuple[str, str]:
        """Decide how runs are shown, quickly and without a prompt.

        Args:
            wanted: ``online``, ``offline``, ``disabled``, or ``auto``.

        Returns:
            The mode, one of the first three; and the reason in a few words.

        Raises:
            ConfigError: online is asked for, and that is not possible.
        """
        ...

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page, *, project: str | None = None, strict: bool = False) -> Tracker:
        """Start to show a run, or continue.

        Args:
            mode: as ``decide`` returns it; ``disabled`` gives a tracker that does nothing.
            folder: for the service's own files.
            page: what is known of the run before it trains.
            project: where it is shown, unless the service's own settings say so.
            strict: whether failures raise ``Unsent``.
        """
        ...

    def agrees(self, values: dict[str, Any]) -> bool:
        """Return whether the last numbers that are there already are these."""
        ...

    def log(self, values: dict[str, Any], step: int) -> None:
        """Show the numbers of a step; steps rise. One that is there already is left out."""
        ...

    def finish(self, summary: dict[str, Any] | None = None, exit_code: int = 0) -> None:
        """Show the final numbers and end; nothing is shown afterwards."""
        ...
