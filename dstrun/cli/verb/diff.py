"""``dstrun diff``: what differs between two runs."""

from __future__ import annotations

from dstrun.cli.verb.show import RUN
from dstrun.cli.words import parser
from dstrun.system.progress import say
from dstrun.system.safe import put

HELP = {34: ("diff RUN RUN", "what differs between two runs: overrides, settings, numbers")}


def main(words: list[str]) -> int:
    """Print what differs between two runs."""
    made = parser("diff", "Show the overrides, settings and numbers that differ between two runs.", runs=False)
    made.add_argument("a", metavar="RUN", help=RUN)
    made.add_argument("b", metavar="RUN", help="the other run")
    arguments = made.parse_args(words)
    from dstrun.report import one
    from dstrun.report.format import Column, render
    from dstrun.report.terminal import Block, show
    from dstrun.run.finished import look_up

    a, b = look_up(arguments.a), look_up(arguments.b)
    rows = one.compared(a, b)
    if arguments.format not in (None, "md"):
        put(render(rows, [*(Column(key) for key in ("part", "key", "a", "b"))], arguments.format))
        return 0
    put(f"a  {one.place(a)}\nb  {one.place(b)}\n")
    if not rows:
        say("nothing differs: overrides, settings and numbers are the same")
        return 0
    rows = [row | {"part": "overrides"} if row["part"] == "words" else row for row in rows]
    columns = [Column("part", head=True), Column("name", "what", head=True)]
    columns += [Column("a_text", "a"), Column("b_text", "b"), Column("change", "b / a")]
    show([Block(rows, columns)], arguments.format)
    return 0
