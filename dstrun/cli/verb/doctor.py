"""``dstrun doctor``: what works on this machine."""

from __future__ import annotations

from dstrun.cli.words import parser
from dstrun.system.progress import doing

HELP = {120: ("doctor", "what works on this machine")}


def main(words: list[str]) -> int:
    """Show what works on this machine."""
    arguments = parser("doctor", "Check what works on this machine.", runs=False).parse_args(words)
    from dstrun.cli.doctor import examine
    from dstrun.report.terminal import Block, show

    with doing("checking this machine"):
        rows, columns = examine()
    show([Block(rows, columns)], arguments.format)
    return 1 if any(row["state"] == "broken" for row in rows) else 0
