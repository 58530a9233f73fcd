"""``dstrun sync``: rebuild runs on Weights & Biases from their files."""

from __future__ import annotations

import time

from dstrun.cli.words import found_runs, nothing, parser
from dstrun.system.progress import say

HELP = {90: ("sync results --dry-run", "rebuild runs on W&B from files")}


def main(words: list[str]) -> int:
    """Send what is not there yet, or say what would be sent."""
    made = parser("sync", "Rebuild runs on Weights & Biases from their files; what is there already is not sent again.")
    made.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    made.add_argument("--project", help="on W&B (default: the run's wandb.project, WANDB_PROJECT, or dstrun)")
    made.add_argument("--offline", action="store_true", help="write wandb's files for `wandb sync`; needs no server")
    arguments = made.parse_intermixed_args(words)
    from dstrun.report.terminal import Block, show
    from dstrun.run import sync

    to = sync.Destination("offline" if arguments.offline else "online", arguments.project)
    if not (arguments.offline or arguments.dry_run):
        sync.reach()
    items = sync.plan(found_runs(arguments.which), to, time.time())
    if not items:
        return nothing(arguments.which)
    if not arguments.dry_run:
        sync.send(items, to)
    rows = [item.row for item in items]
    show([Block(rows, sync.COLUMNS)], arguments.format)
    say(sync.totals(items, to, arguments.dry_run))
    return 1 if any(row["sync"] == sync.FAILED for row in rows) else 0
