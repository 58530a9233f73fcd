"""The mirror of a run on Weights & Biases: the only module that imports wandb, and only where it is used.

The records on disk are the truth. Whether to mirror them, and whether over the network, is decided before wandb is
started: it would prompt for a missing key, and wait for minutes for a server that cannot be reached.
"""

from __future__ import annotations

import configparser
import logging
import math
import netrc
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dstrun.config.option import expanded
from dstrun.system import home
from dstrun.system.trouble import ConfigError
from dstrun.tracker.page import Page
from dstrun.tracker.protocol import Tracker, Unsent

MODES = ("online", "offline", "disabled")
PUBLIC = "https://api.wandb.ai"
PATIENCE = 2.0  # seconds to reach the server

# What wandb would print, watch or copy by itself: the run's record has it.
SETTINGS: dict[str, Any] = {
    "silent": True,
    "quiet": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "reinit": "create_new",
    "init_timeout": 15.0,
    "x_graphql_retry_max": 1,
    "x_graphql_timeout_seconds": 5.0,
    "finish_timeout": 60.0,
}

logger = logging.getLogger("dstrun")


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
    if not _reachable(url):
        return f"no connection to {url} within {PATIENCE:g} s", ""
    return None


class Mirror(Tracker):
    """A run on Weights & Biases. After a failure, which is said once, the mirror turns itself off."""

    decide = staticmethod(decide)

    def __init__(self, *, strict: bool = False) -> None:
        self._run: Any = None
        self._strict = strict
        self.next = 0

    @classmethod
    def open(cls, mode: str, folder: Path, page: Page, *, project: str | None = None, strict: bool = False) -> Mirror:
        """Start mirroring a run.

        Args:
            mode: as ``decide`` returns it; ``disabled`` gives a mirror that does nothing.
            folder: wandb's files go to ``folder/wandb``.
            page: what W&B shows of the run; online, opening it again continues it.
            project: where it is shown; ``own_project()`` if null.
            strict: whether failures are raised.
        """
        mirror = cls(strict=strict)
        if mode == "disabled":
            return mirror
        try:
            mirror._run = _init(mode, folder, page, project or own_project(), finish_timeout_raises=strict)
            mirror.next = mirror._run.starting_step
        except Exception as error:
            mirror._give_up(error)
        return mirror

    def agrees(self, values: dict[str, Any]) -> bool:
        """Return whether the last numbers that are there already are these."""
        return all(_same(value, self._run.summary.get(key)) for key, value in values.items())

    def log(self, values: dict[str, Any], step: int) -> None:
        """Mirror the numbers of a step; steps rise. One that a continued run has already mirrored is left out."""
        if self._run is None or step < self.next:
            return
        try:
            # W&B keeps an explicit step open for more values unless told otherwise: a killed run would lose it.
            self._run.log(values, step=step, commit=True)
            self.next = step + 1
        except Exception as error:
            self._give_up(error)

    def finish(self, summary: dict[str, Any] | None = None, exit_code: int = 0) -> None:
        """Mirror the final numbers and close the run; the mirror does nothing afterwards."""
        if self._run is None:
            return
        try:
            self._run.summary.update(summary or {})
            self._run.finish(exit_code=exit_code)
        except Exception as error:
            self._give_up(error)
        self._run = None

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = " ".join(str(error).split()) or type(error).__name__
        if self._strict:
            raise Unsent(reason) from error
        logger.warning(
            "W&B stopped mirroring this run, whose record on disk goes on without it (dstrun sync sends it): %s", reason
        )


def _init(mode: str, folder: Path, page: Page, project: str, **settings: Any) -> Any:
    home.for_wandb()
    import wandb

    # Many of these names are private to a version of wandb: one it lacks must not cost the mirror.
    settings = SETTINGS | {"base_url": server()} | settings
    known = {k: v for k, v in settings.items() if k in wandb.Settings.model_fields}
    return wandb.init(
        mode="online" if mode == "online" else "offline",
        dir=folder.absolute(),  # wandb's own process may have started elsewhere
        id=page.id,
        name=page.id,
        group=page.group,
        tags=page.tags,
        config=page.config,
        project=project,
        # W&B neither overwrites what it has of a run nor lets the name of a deleted one be used again.
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(**known),
    )


def _same(one: Any, other: Any) -> bool:
    """Compare two numbers, of which JSON may have made words."""
    try:
        return float(one) == float(other) or (math.isnan(float(one)) and math.isnan(float(other)))
    except (TypeError, ValueError):
        return one == other


def own_project() -> str:
    """Name the project that runs go to."""
    return os.environ.get("WANDB_PROJECT") or "dstrun"


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


def _reachable(url: str) -> bool:
    """Try a TCP connection to the server, or to the proxy that leads there."""
    reached = threading.Event()

    def knock() -> None:
        from urllib.request import getproxies, proxy_bypass

        with suppress(OSError, ValueError):
            target = urlsplit(url)
            proxy = getproxies().get(target.scheme)
            if proxy and not proxy_bypass(target.netloc):
                target = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
            port = target.port or (443 if target.scheme == "https" else 80)
            # Without a host the system would connect to this machine.
            if target.hostname:
                socket.create_connection((target.hostname, port), timeout=PATIENCE).close()
                reached.set()

    # In a thread, as looking up a name knows no timeout.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return reached.is_set()
