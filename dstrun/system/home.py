"""Folders of libraries below a read-only home: replaced until the process ends, without a warning."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from multiprocessing.util import Finalize
from pathlib import Path


def for_matplotlib() -> None:
    """See to it, before matplotlib is imported, that it can write its settings and the list of fonts."""
    home = os.path.expanduser("~")
    folders = [Path(home, ".matplotlib")]
    if sys.platform.startswith(("linux", "freebsd")):
        folders = [Path(_xdg("CONFIG", home), "matplotlib"), Path(_xdg("CACHE", home), "matplotlib")]
    if "matplotlib" not in sys.modules:
        _see_to("MPLCONFIGDIR", folders)


def for_wandb() -> None:
    """See to it, before wandb is imported, that it can write its log, which else goes to the terminal."""
    if sys.platform.startswith(("linux", "freebsd")):
        _see_to("WANDB_CACHE_DIR", [Path(_xdg("CACHE", os.path.expanduser("~")), "wandb")])


def _xdg(kind: str, home: str) -> Path:
    return Path(os.environ.get(f"XDG_{kind}_HOME") or Path(home, f".{kind.lower()}"))


def _see_to(variable: str, usual: Iterable[Path]) -> None:
    """Make a variable name a folder that is removed at the end, where the usual ones cannot be written."""
    if chosen := os.environ.get(variable):
        usual = [Path(chosen)]
    if all(map(_writable, usual)):
        return
    folder = tempfile.mkdtemp(prefix="dstrun-")
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=-1000)  # in processes of a sweep, atexit does nothing
    os.environ[variable] = folder


def _writable(folder: Path) -> bool:
    """Return whether a folder is there, or could be made as the library would, and can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
