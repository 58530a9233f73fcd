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

    def ask(*words: str) -> str:
        here = Path(__file__).parents[1]
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if ask("ls-files", "--error-unmatch", "run.py") != "run.py":
            raise FileNotFoundError
        return {"git_commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "dirty": None}
