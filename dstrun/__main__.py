"""Run the command line: ``dstrun``, or ``python -m dstrun``."""

from __future__ import annotations

import sys


def run() -> int:
    """Run it; Ctrl-C leaves no traceback, not even while it is loaded."""
    from dstrun.system.interrupt import LEFT, leave_quietly

    leave_quietly()
    try:
        from dstrun.cli.main import main
    except KeyboardInterrupt:
        return LEFT
    return main()


if __name__ == "__main__":
    sys.exit(run())
