"""What a tracker must offer, and how the trackers of a run receive its events.

A service is a module of this package with a class ``Mirror``: ``tracker=NAME`` finds it by its file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dstrun.system.trouble import ConfigError
from dstrun.tracker.page import Page

logger = logging.getLogger("dstrun")


class Tracker(Protocol):
    """A run as a service shows it. Any call but ``decide`` may raise: training goes on without the service then.

    Attributes:
        next: the first step that is taken; those before it are there already.
        remedy: what a user whose run is no longer followed can do, in a few words.
    """

    next: int
    remedy: ClassVar[str] = ""

    @staticmethod
    def decide(config: Mapping[str, Any]) -> tuple[str, str]:
        """Decide how a run is shown, quickly and without a prompt; the service's own library is not imported.

        Args:
            config: the resolved configuration.

        Returns:
            The mode, ``online``, ``offline`` or ``disabled``; and the reason or the place in a few words.

        Raises:
            ConfigError: what is asked for is not possible.
        """
        ...

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page) -> Tracker:
        """Start to show a run, or continue.

        Args:
            mode: as ``decide`` returns it; never ``disabled``.
            folder: of the run, for files of the service's own.
            page: what is known of the run before it trains.
        """
        ...

    def log(self, values: dict[str, Any], step: int) -> None:
        """Show the numbers of a step, which is ``next`` or later; steps rise."""
        ...

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Show final numbers, words and tables, and end; nothing is shown afterwards."""
        ...


class Trackers:
    """The trackers of a run: the failure of one is said once, and stops neither the training nor the others.

    Args:
        config: the resolved configuration.

    Raises:
        ConfigError: one of them cannot show the run as asked.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._classes: dict[str, type[Tracker]] = {name: mirror(name) for name in config["tracker"]}
        self._modes = {name: cls.decide(config) for name, cls in self._classes.items()}
        self._open: dict[str, Tracker] = {}

    def __str__(self) -> str:
        """Name each, how it shows the run, and why or where."""
        return ", ".join(f"{name} {mode} ({why})" for name, (mode, why) in self._modes.items()) or "no tracker"

    def open(self, folder: Path, page: Page) -> None:
        """Start to show a run, or continue."""
        for name, (mode, _) in self._modes.items():
            if mode != "disabled":
                with self._spared(name):
                    self._open[name] = self._classes[name].open(mode, folder, page)

    def log(self, values: dict[str, Any], step: int) -> None:
        """Show the numbers of a step in those that lack it."""
        for name, tracker in [*self._open.items()]:
            with self._spared(name):
                if step >= tracker.next:
                    tracker.log(values, step)
                    tracker.next = step + 1

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        """Show final numbers and end."""
        for name, tracker in [*self._open.items()]:
            with self._spared(name):
                tracker.finish(summary, exit_code)
        self._open.clear()

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            logger.warning(
                "tracker %s has stopped logging this run, whose record on disk continues without it%s: %s",
                name,
                self._classes[name].remedy,
                reason(error),
            )


def mirror(name: str) -> type[Tracker]:
    """Import a tracker by its name."""
    return import_module(f"dstrun.tracker.{name}").Mirror


def reason(error: Exception) -> str:
    """Return what an error says in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def need(tracker: str, module: str, package: str) -> None:
    """Make sure that a tracker's library is installed, without importing it.

    Raises:
        ConfigError: it is not.
    """
    if find_spec(module) is None:
        raise ConfigError(f"tracker={tracker} needs a package that is not installed: pip install {package}")
