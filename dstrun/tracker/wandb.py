"""A run on Weights & Biases: the only module that imports wandb, and only where it is used.

The records on disk are the truth. Whether to mirror them, and whether over the network, is decided before wandb is
started: it would prompt for a missing key, and wait for minutes for a server that cannot be reached.
"""

from __future__ import annotations

import configparser
import math
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dstrun.config.option import expanded
from dstrun.system import home
from dstrun.system.reach import PATIENCE, reachable
from dstrun.system.trouble import ConfigError
from dstrun.tracker.page import Page, Table
from dstrun.tracker.protocol import Tracker

MODES = ("online", "offline", "disabled")
PUBLIC = "https://api.wandb.ai"

# What wandb would print, watch or copy by itself: the run's record has it.
SETTINGS: dict[str, Any] = {
    "silent": True,
    "quiet": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "reinit": "create_new",
    "init_timeout": 15.0,
    "x_graphql_retry_max": 1,
    "x_graphql_timeout_seconds": 5.0,
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,
}


def decide(wanted: str) -> tuple[str, str]:
    """Decide how to mirror a run, within two seconds and without a prompt; never imports wandb.

    Args:
        wanted: ``online``, ``offline``, ``disabled``, or ``auto``: what ``WANDB_MODE`` says; without it online where
            a key is configured and the server can be reached, else offline.

    Returns:
        The mode, one of ``online``, ``offline``, ``disabled``; and the reason in a few words.

    Raises:
        ConfigError: online is asked for, and there is no key or no way to the server.
    """
    setting = f"wandb={wanted}"
    if wanted == "auto" and os.environ.get("WANDB_MODE") in MODES:
        wanted = os.environ["WANDB_MODE"]
        setting = f"WANDB_MODE={wanted}"
    if wanted in ("offline", "disabled"):
        return wanted, setting
    missing = lack()
    if missing is None:
        return "online", f"key and connection for {server()}"
    if wanted == "online":
        raise ConfigError(f"{setting} finds {missing[0]}: {missing[1]}choose wandb=offline")
    return "offline", missing[0]


def lack() -> tuple[str, str] | None:
    """Return what keeps runs from being sent, and the words that say what to do; ``None`` if nothing does.

    Within two seconds and without a prompt.
    """
    url = server()
    if not _has_key(url):
        return f"no API key for {url}", "run `wandb login`, or "
    if not reachable(url):
        return f"no connection to {url} within {PATIENCE:g} s", ""
    return None


class Mirror(Tracker):
    """A run on Weights & Biases."""

    remedy = " (dstrun sync sends it)"

    def __init__(self, run: Any) -> None:
        self._run = run
        self.next = run.starting_step

    @staticmethod
    def decide(config: Mapping[str, Any]) -> tuple[str, str]:
        """Decide how to mirror a run, see ``decide``."""
        return decide(config["wandb"]["mode"])

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page, *, project: str | None = None) -> Mirror:
        """Start mirroring a run.

        Args:
            mode: as ``decide`` returns it; never ``disabled``.
            folder: wandb's files go to ``folder/wandb``.
            page: what W&B shows of the run; online, opening it again continues it.
            project: where it is shown, in place of what its configuration says.
        """
        home.for_wandb()
        import wandb

        said = settings(page.config)
        how = SETTINGS | {"base_url": server(), "x_disable_stats": not said.get("system")}
        # Many of these names are private to a version of wandb: one it lacks must not cost the mirror.
        known = {key: value for key, value in how.items() if key in wandb.Settings.model_fields}
        run = wandb.init(
            mode="online" if mode == "online" else "offline",
            dir=folder.absolute(),  # wandb's own process may have started elsewhere
            id=page.id,
            name=page.id,
            group=page.group,
            tags=page.tags,
            notes=said.get("notes"),
            config=page.config,
            entity=said.get("entity"),
            project=project or project_of(page.config),
            # W&B neither overwrites what it has of a run nor lets the name of a deleted one be used again.
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(**known),
        )
        return cls(run)

    def agrees(self, values: dict[str, Any]) -> bool:
        """Return whether the last numbers that are there already are these."""
        return all(_same(value, self._run.summary.get(key)) for key, value in values.items())

    def log(self, values: dict[str, Any], step: int) -> None:
        """Mirror the numbers of a step; steps rise."""
        # W&B keeps an explicit step open for more values unless told otherwise: a killed run would lose it.
        self._run.log(values, step=step, commit=True)

    def finish(self, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Mirror the final numbers and close the run."""
        tables = {key: value for key, value in summary.items() if isinstance(value, Table)}
        self._run.summary.update({key: value for key, value in summary.items() if key not in tables})
        try:
            if tables:
                import wandb

                shown = {key: wandb.Table(columns=[*table.columns], data=table.rows) for key, table in tables.items()}
                self._run.summary.update(shown)
        finally:  # a table is sent as a file of its own, and may fail where numbers have arrived
            self._run.finish(exit_code=exit_code)


def _same(one: Any, other: Any) -> bool:
    """Compare two numbers, of which JSON may have made words."""
    try:
        return float(one) == float(other) or (math.isnan(float(one)) and math.isnan(float(other)))
    except (TypeError, ValueError):
        return one == other


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of W&B; nothing of one of an older version, which had the mode alone."""
    said = config.get("wandb")
    return said if isinstance(said, dict) else {}


def project_of(config: Mapping[str, Any]) -> str:
    """Name the project that a run goes to."""
    return settings(config).get("project") or os.environ.get("WANDB_PROJECT") or "dstrun"


def server() -> str:
    """Find the server as wandb does: the environment, what ``wandb login --host`` saved, the public one."""
    url = os.environ.get("WANDB_BASE_URL")
    if not url:
        folder = Path(expanded(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"))
        saved = configparser.ConfigParser(interpolation=None)
        with suppress(configparser.Error, OSError, UnicodeDecodeError):
            saved.read(folder / "settings")
        url = saved.get("default", "base_url", fallback=PUBLIC)
    return url.rstrip("/")


def _has_key(url: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in files:
        with suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            found = netrc.netrc(expanded(file)).authenticators(urlsplit(url).netloc)
            return bool(found and found[2])
    return False
