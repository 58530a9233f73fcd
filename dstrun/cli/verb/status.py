"""``dstrun status``: the state of runs."""

from __future__ import annotations

import time
from pathlib import Path

from dstrun.cli.flags import a_path
from dstrun.cli.words import nothing, parser
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError

HELP = {30: ("status results --watch", "every run: state, accuracy, time left")}


def main(words: list[str]) -> int:
    """Show every run: state, epoch, accuracy, time left, memory."""
    from dstrun.report import status, terminal

    made = parser("status", "List every run: state, epoch, accuracy, time left, memory.", runs=False)
    made.add_argument("results", nargs="*", type=a_path, default=[Path("results")], help="folders (default: results)")
    made.add_argument("--state", help=f"only these states, comma-separated: {', '.join(status.STATES)}")
    made.add_argument("--sort", choices=status.SORTS, help="order of rows (default: run; with --watch: state)")
    made.add_argument("--watch", action="store_true", help="follow a sweep until it is over; q quits")
    made.add_argument("--interval", type=float, default=5.0, help="seconds between updates with --watch (default: 5)")
    arguments = made.parse_args(words)
    if arguments.watch and arguments.format:
        raise ConfigError(f"--watch cannot be combined with --format {arguments.format}")
    if not arguments.interval > 0:
        raise ConfigError(f"--interval {arguments.interval:g} must be above 0")
    choose = status.chooser(arguments.state, arguments.sort or ("state" if arguments.watch else "run"))
    sweep = status.Sweep(arguments.results)
    if arguments.watch:
        from dstrun.report.watch import watch

        rows = watch(sweep, choose, arguments.interval)
        return 0 if rows else nothing(arguments.results)
    rows = sweep.rows(time.time())
    if not rows:
        return nothing(arguments.results)
    chosen = choose(rows)
    at_terminal = arguments.format is None and terminal.on_terminal()
    table = [terminal.Block(chosen, status.COLUMNS)]
    terminal.show(status.blocks(chosen, terminal.width()) if at_terminal else table, arguments.format)
    say(status.totals(rows))
    return 0
