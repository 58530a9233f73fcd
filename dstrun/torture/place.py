"""Where a certificate holds: machine, file system, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstrun import __version__


@contextmanager
def workshop(results: Path) -> Iterator[Path]:
    """Make a folder below ``results`` in which everything is written, the cache too; it is removed at the end."""
    results.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=results)).resolve()
    before, os.environ["DSTRUN_CACHE"] = os.environ.get("DSTRUN_CACHE"), str(folder / "cache")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("DSTRUN_CACHE") if before is None else os.environ.update(DSTRUN_CACHE=before)


def place(folder: Path) -> dict[str, str]:
    """Describe where the runs were."""
    return {
        "dstrun": __version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "machine": f"{platform.node()}, {platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "folder": str(folder),
        "file system": file_system(folder.resolve()),
    }


def file_system(path: Path) -> str:
    """Return of which type the file system of a folder is, and how it is mounted; ``unknown`` where nothing tells."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    best: tuple[str, str] = ("", "unknown")
    for line in lines:
        _, at, kind, options, *_ = line.split()
        at = at.encode().decode("unicode_escape")
        if path.is_relative_to(at) and len(at) >= len(best[0]):
            best = at, f"{kind} at {at} ({','.join(options.split(',')[:6])})"
    return best[1]
