"""``dstrun methods``: every method and its paper."""

from __future__ import annotations

from dstrun.cli.words import parser
from dstrun.system.progress import doing

HELP = {10: ("methods", "every method: paper, cost and start")}


def main(words: list[str]) -> int:
    """List every method with its paper and what it costs."""
    made = parser(
        "methods", "List every method with its paper, the cost of a step and what it starts from.", runs=False
    )
    arguments = made.parse_args(words)
    from dstrun.cli import methods
    from dstrun.report.terminal import Block, on_terminal, show

    piped = arguments.format == "md" or (arguments.format is None and not on_terminal())
    with doing("reading the recipes of all methods"):
        rows = methods.rows(methods.FITS if piped else None)
    show([Block(rows, methods.COLUMNS), "\n".join(f"- {line}" for line in methods.legend(rows))], arguments.format)
    return 0
