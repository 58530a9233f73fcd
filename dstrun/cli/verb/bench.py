"""``dstrun bench``: measure this machine."""

from __future__ import annotations

import shlex
from importlib import import_module

from dstrun.cli.words import parser
from dstrun.config.option import nearest
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError

HELP = {110: ("bench kernel", "time dense, masked and sparse kernels")}


def main(words: list[str]) -> int:
    """Measure this machine; what has been measured is written as it comes."""
    from dstrun.bench import arguments

    if words and words[0] not in arguments.BENCHES and not words[0].startswith("-"):
        known = ", ".join(arguments.BENCHES)
        raise ConfigError(f"bench {words[0]} is not known: choose {known}{nearest(words[0], arguments.BENCHES)}")
    made = parser("bench", "Time dense and sparse training in turns on this machine.", rows=False, runs=False)
    made.add_argument(
        "what", choices=arguments.BENCHES, metavar="WHAT",
        help=f"{', '.join(arguments.BENCHES)}; dstrun bench WHAT --help lists its options",
    )  # fmt: skip
    what = made.parse_args(words[:1]).what
    made = parser(f"bench {what}", arguments.BENCHES[what].__doc__ or "", runs=False)
    settings, form, out = arguments.read(what, made, words[1:])
    from dstrun.bench import result, table
    from dstrun.report.terminal import Block, show

    measured = []
    for rows in import_module(f"dstrun.bench.{what}").measure(settings):
        measured += rows
        result.write(what, measured, out)
    shown, columns, notes = table.TABLES[what](measured)
    if form in ("csv", "json"):
        shown, columns = measured, result.columns(what)
    show([Block(shown, columns)], form)
    say("\n".join(f"- {note}" for note in [*notes, table.where(measured)]))
    say(f"next: dstrun plot bench {shlex.quote(str(out))}")
    return 0
