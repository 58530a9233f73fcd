"""``dstrun eval``: a finished run's network on the images of its record, or on others."""

from __future__ import annotations

from dstrun.cli.start import read
from dstrun.cli.words import own_code, parser
from dstrun.system.progress import say

HELP = {84: ("eval RUN --split val", "evaluate a finished run again")}


def main(words: list[str]) -> int:
    """Evaluate a run."""
    made = parser("eval", "Evaluate the network of a finished run, as in training.", runs=False)
    made.add_argument("run", metavar="RUN", help="a run: its folder, its id or the beginning of its id")
    made.add_argument(
        "overrides", nargs="*", metavar="dataset=",
        help="dataset=NAME, dataset.KEY=VALUE and device= (default: those of the run)",
    )  # fmt: skip
    from dstrun.run.evaluation import COLUMNS, SPLITS, settings

    made.add_argument("--split", choices=SPLITS, help="the split (default: the one that the run was evaluated on)")
    own_code(made)
    arguments = made.parse_intermixed_args(words)
    from dstrun.run.finished import find, modules

    run, places = find(arguments.run), modules(arguments.config_dir)
    config = settings(run, read(arguments.overrides), arguments.split, arguments.config_dir)
    from dstrun.report.terminal import Block, show
    from dstrun.run.evaluation import evaluate

    row = evaluate(run, config, arguments.split, arguments.trusted, places)
    show([Block([row], COLUMNS)], arguments.format)
    if row["agrees"] is False:
        say(
            "the numbers differ from the record: another machine, PyTorch version or number of threads can "
            "round differently"
        )
    return 0
