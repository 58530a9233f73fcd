"""``dstrun methods``: every method and its paper."""

from __future__ import annotations

from dstrun.cli.words import parser

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
    table = Block(methods.rows(methods.FITS if piped else None), methods.COLUMNS)
    show([table, "\n".join(f"- {line}" for line in methods.LEGEND)], arguments.format)
    return 0
