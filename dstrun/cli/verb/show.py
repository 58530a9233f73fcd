"""``dstrun show``: one run in full."""

from __future__ import annotations

from dstrun.cli.words import parser
from dstrun.system.safe import put

HELP = {32: ("show RUN", "one run: command, settings, state, numbers, files")}

RUN = "a run: its folder, its id or the beginning of its id"


def main(words: list[str]) -> int:
    """Show a run."""
    made = parser("show", "Show one run: its command, settings, state, numbers and files.", runs=False)
    made.add_argument("run", metavar="RUN", help=RUN)
    arguments = made.parse_args(words)
    from dstrun.report import one
    from dstrun.report.format import Column, render
    from dstrun.report.terminal import show
    from dstrun.run.finished import look_up

    rows = one.rows(look_up(arguments.run))
    if arguments.format is None:
        show([one.text(rows)], None)
    elif arguments.format in ("csv", "json"):
        put(render(rows, one.COLUMNS, arguments.format))
    else:
        put(
            render(
                rows,
                [Column("part", head=True), Column("name", "what", head=True), Column("text", "value")],
                arguments.format,
            )
        )
    return 0
