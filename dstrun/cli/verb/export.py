"""``dstrun export``: all epochs and all runs for other programs."""

from __future__ import annotations

import time
from pathlib import Path

from dstrun.cli.flags import a_path
from dstrun.cli.words import found_runs, nothing, parser
from dstrun.system.safe import put

HELP = {80: ("export results --out DIR", "all epochs and all runs as two files")}


def main(words: list[str]) -> int:
    """Write one file of all epochs and one of all runs."""
    from dstrun.report import export as exports

    made = parser("export", "Write two tidy files: one of all epochs and one of all runs, finished or not.", rows=False)
    made.add_argument("--out", type=a_path, default=Path("results/export"), help="folder (default: results/export)")
    made.add_argument("--format", choices=exports.FORMATS, default="parquet", help="file format (default: parquet)")
    arguments = made.parse_intermixed_args(words)
    if not (runs := found_runs(arguments.which)):
        return nothing(arguments.which)
    put("\n".join(map(str, exports.export(runs, arguments.out, arguments.format, time.time()))))
    return 0
