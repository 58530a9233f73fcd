"""``dstrun migrate``: move runs of older versions to the ids of this one."""

from __future__ import annotations

import time

from dstrun.cli.words import found_runs, nothing, parser
from dstrun.system.progress import say

HELP = {100: ("migrate results --dry-run", "move older runs to their new ids")}


def main(words: list[str]) -> int:
    """Carry runs over, or say what would be carried."""
    made = parser("migrate", "Move runs of older versions to the folders and ids that this version uses for them.")
    made.add_argument("--dry-run", action="store_true", help="show what would be moved, and write nothing")
    arguments = made.parse_intermixed_args(words)
    from dstrun.report.terminal import Block, show
    from dstrun.run import migrate

    items = migrate.plan(found_runs(arguments.which), time.time())
    if not items:
        return nothing(arguments.which)
    if not arguments.dry_run:
        migrate.carry(items)
    show([Block([item.row for item in items], migrate.COLUMNS)], arguments.format)
    say(migrate.totals(items, arguments.dry_run))
    return 1 if any(item.row["migrate"] == migrate.FAILED for item in items) else 0
