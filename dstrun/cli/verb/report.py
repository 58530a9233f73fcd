"""``dstrun report``: one page of HTML about some runs."""

from __future__ import annotations

import time
from pathlib import Path

from dstrun.cli.flags import a_path
from dstrun.cli.words import found_runs, nothing, parser, split_query
from dstrun.system.safe import put

HELP = {60: ("report results --out FILE.html", "a page of tables, figures and runs")}


def main(words: list[str]) -> int:
    """Write a page of tables, figures, failures, configuration and runs."""
    made = parser("report", "Write one HTML page: question, sweep, tables, figures, failures, every run.", rows=False)
    made.add_argument(
        "--out", type=a_path, default=Path("report.html"), help="file ending in .html (default: report.html)"
    )
    made.add_argument("--title", default="", help="default: the names of the experiments")
    made.add_argument(
        "--question", default="", help="the question that the runs answer; default: derived from what varies"
    )
    arguments = made.parse_intermixed_args(words)
    from dstrun.report import page

    folders, query = split_query(arguments.which)
    if not (runs := found_runs(arguments.which)):
        return nothing(arguments.which)
    page.write(runs, folders, arguments.out, time.time(), arguments.title, arguments.question, query["where"])
    put(str(arguments.out))
    return 0
