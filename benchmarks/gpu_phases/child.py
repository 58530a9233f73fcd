"""A process of its own for one job: ``python -m gpu_phases.child MODULE:FUNCTION ARGUMENTS``, these as JSON.

The function yields what it found, a dictionary each, which is written as a line that begins with ``MARK``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

MARK = "@ "

Found = dict[str, Any]


def check(name: str, test: Callable[[], tuple[bool | None, str]]) -> Found:
    """Return how a check went, an error being a failure: whether it holds (``None``: not made here), and numbers."""
    try:
        holds, told = test()
    except Exception as error:
        holds, told = False, last_line(error)
    return {"check": name, "holds": holds, "told": told}


def row(name: str, value: float, unit: str, note: str = "") -> Found:
    """Return a number that was measured."""
    return {"row": name, "value": value, "unit": unit, "note": note}


def last_line(error: BaseException) -> str:
    """Return an error in a line, with the last place in this project that it went through."""
    root = str(Path(__file__).parents[2])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{where}"


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one ends, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def main() -> int:
    end_with_parent()
    channel = os.fdopen(os.dup(1), "w", buffering=1)  # whatever becomes of the output of what is called
    module, function = sys.argv[1].split(":")
    try:
        found: Iterator[Found] = getattr(import_module(module), function)(**json.loads(sys.argv[2]))
        for one in found:
            channel.write(f"{MARK}{json.dumps(one)}\n")
    except Exception as error:
        traceback.print_exc()
        channel.write(f"{MARK}{json.dumps({'error': last_line(error)})}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
