"""``dstrun table``: a table of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dstrun.cli.words import QUERY, found_runs, key_names, nothing, parser, split_query
from dstrun.system.progress import say
from dstrun.system.safe import put
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    from dstrun.report.table import Table

HELP = {40: ("table results --preset memory", "also accuracy, flops, cost")}
DESCRIPTION = (
    "Show the mean and standard deviation over seeds. Rows, columns and values other than a preset's: rows=method "
    "cols=model,sparsity value=accuracy.top1; fields are groups, settings, and keys of a record (docs/reports.md). "
    "FILE.csv of dstrun bench in place of folders: what it has measured, one line a case"
)


def main(words: list[str]) -> int:
    """Make a table of runs."""
    from dstrun.report import table as tables
    from dstrun.report.terminal import Block, show

    made = parser("table", DESCRIPTION)
    made.add_argument("--preset", choices=tables.PRESETS, default="accuracy", help="which table (default: accuracy)")
    made.add_argument("--runs", action="store_true", help="list the runs behind every cell")
    made.add_argument("--ci", action="store_true", help="95 %% confidence intervals in place of deviations")
    made.add_argument("--significant", action="store_true", help="bold: all not significantly worse than the best")
    made.add_argument("--against", default="", metavar="METHOD", help="show the difference to this method in brackets")
    made.add_argument("--published", action="store_true", help="published numbers beside these (results/published.csv)")
    made.add_argument(
        "--reference", action="append", default=[], metavar="FILE", help="a CSV file of more published numbers"
    )
    made.add_argument("--digits", type=int, choices=range(7), default=1, help="decimals of accuracies (default: 1)")
    made.add_argument("--caption", default="", help="caption of the table, with --format latex")
    made.add_argument(
        "--label", default="", help="label of the table, with --format latex (default: tab:MODEL-on-DATASET)"
    )
    made.add_argument(
        "--names", metavar="papers|KEY=NAME,...",
        help="names in place of keys: as papers write them (always with latex), or your own",
    )  # fmt: skip
    arguments = made.parse_intermixed_args(words)
    if (arguments.caption or arguments.label) and arguments.format != "latex":
        raise ConfigError("--caption and --label need --format latex")
    shown = {"caption": arguments.caption, "label": arguments.label, "names": key_names(arguments.names)}
    taken = ("which", "format", "runs", *shown)
    asked = {key: value for key, value in vars(arguments).items() if key not in taken}
    if any(word.endswith(".csv") for word in arguments.which):
        for key in (*asked, *shown):
            if getattr(arguments, key) != made.get_default(key):
                raise ConfigError(f"--{key} makes no sense with files of dstrun bench")
        return of_bench(arguments.which, arguments.format, arguments.runs)
    built = ask(arguments.which, **asked)
    if not built.cells:
        return nothing(of_runs(arguments.which))
    if arguments.runs:
        show([Block(built.runs, tables.columns_of(built.runs))], arguments.format)
    elif arguments.format in (None, "md"):
        show(built.blocks(shown["names"]), arguments.format)
    else:
        put(built.render(arguments.format, **shown))
    if arguments.format in ("csv", "json") and not arguments.runs:
        say("\n".join(built.notes))
    return 0


def ask(
    which: Sequence[str],
    preset: str = "accuracy",
    *,
    ci: bool = False,
    significant: bool = False,
    against: str = "",
    published: bool = False,
    reference: Sequence[str | Path] = (),
    digits: int = 1,
) -> Table:
    """Build the table that words and flags of the verb ask for; without cells where there are no such runs.

    Raises:
        ConfigError: a word makes no sense.
    """
    from dstrun.report.published import references
    from dstrun.report.table import build
    from dstrun.report.table.cells import Options

    query = split_query(which, QUERY)[1]
    options = Options(
        *(",".join(query[key]) if query[key] else None for key in QUERY[1:]),
        interval=ci, significant=significant, against=against, digits=digits,
        published=references(reference) if published or reference else None,
    )  # fmt: skip
    return build(found_runs(of_runs(which)), preset, options)


def of_bench(files: Sequence[str], form: str | None, every: bool = False) -> int:
    """Make a table of what ``dstrun bench`` has measured: short, or with ``every`` the one that it printed."""
    from dstrun.bench import result, summary, table
    from dstrun.report.terminal import Block, show

    rows = result.measured(files)
    if not rows:
        return nothing(files, "measurement")
    shown, columns, notes = (table.TABLES if every else summary.SUMMARIES)[rows[0]["bench"]](rows)
    said = "\n".join(f"- {note}" for note in [*notes, *dict.fromkeys(table.where([row]) for row in rows)])
    show([Block(shown, columns), said], form)
    return 0


def of_runs(which: Sequence[str]) -> list[str]:
    """Return folders and conditions, without the arguments for the table itself."""
    folders, query = split_query(which, QUERY)
    return [*map(str, folders), *(f"where={condition}" for condition in query["where"])]
