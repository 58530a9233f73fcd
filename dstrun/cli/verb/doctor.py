"""``dstrun doctor``: what works here."""

from __future__ import annotations

from dstrun.cli.words import parser
from dstrun.system.safe import put

HELP = {120: ("doctor", "what works on this machine")}


def main(words: list[str]) -> int:
    """Show what works on this machine."""
    arguments = parser("doctor", "What works here.", runs=False).parse_args(words)
    from dstrun.cli.doctor import examine
    from dstrun.report.format import render

    rows, columns = examine()
    put(render(rows, columns, arguments.format))
    return 1 if any(row["state"] == "broken" for row in rows) else 0
