"""``dstrun methods``: every method and its paper."""

from __future__ import annotations

from dstrun.cli.words import parser
from dstrun.system.safe import put

HELP = {10: ("methods", "every method: paper, cost and start")}


def main(words: list[str]) -> int:
    """List every method with its paper and what it costs."""
    made = parser("methods", "Every method= with its paper, what a step costs and what it starts from.", runs=False)
    arguments = made.parse_args(words)
    from dstrun.cli import methods
    from dstrun.report.format import render

    put(render(methods.rows(methods.FITS if arguments.format == "md" else None), methods.COLUMNS, arguments.format))
    return 0
