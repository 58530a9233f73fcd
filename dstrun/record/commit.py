"""Which code a record comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any


def commit() -> dict[str, Any]:
    """Return which commit runs: ``$DSTRUN_COMMIT``, for a copy without a repository, or that of the clone."""
    if named := os.environ.get("DSTRUN_COMMIT"):
        return {"git_commit": named, "dirty": None}
    here = Path(__file__)

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", here.name)  # or an installed copy lies within some other repository
        return {"git_commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "dirty": None}
