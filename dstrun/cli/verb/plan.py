"""``dstrun plan``: what a configuration would train and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dstrun.cli.start import check_single, of_file, read
from dstrun.cli.words import parser
from dstrun.system.progress import doing
from dstrun.system.safe import put
from dstrun.system.trouble import ConfigError
from dstrun.system.wording import counted

HELP = {
    20: ("plan model=vgg19 sparsity=0.9", "layers, FLOPs, memory; trains nothing"),
    21: ("plan ... fit=8GiB --time", "what fits into 8 GiB; hours here"),
    22: ("plan -cn accuracy", "FLOPs of a sweep file's runs"),
}


def main(words: list[str]) -> int:
    """Show layers, densities, parameters, FLOPs and predicted memory; train nothing."""
    made = parser("plan", "Show what a configuration would train and cost, without training.", runs=False)
    made.add_argument(
        "overrides", nargs="*",
        help="as for a run, e.g. model=resnet50 dataset=imagenet sparsity=0.9; fit=8GiB finds what fits into "
        "that memory",
    )  # fmt: skip
    made.add_argument(
        "--time",
        action="store_true",
        help="time a few steps on noise, and estimate the hours of the run on this machine",
    )
    made.add_argument("--runs", action="store_true", help="of a sweep, the FLOPs of every run, seeds together")
    made.add_argument("-cn", "--config-name", metavar="NAME", help="a sweep file: FLOPs of all its runs")
    made.add_argument(
        "-cd", "--config-dir", metavar="DIR", action="append", default=[],
        help="where your own options and sweep files are",
    )  # fmt: skip
    arguments = made.parse_intermixed_args(words)
    name, directories = of_file(arguments)
    from dstrun.config.composition import compose, compose_sweep, is_sweep
    from dstrun.report.terminal import Block, show

    overrides, limit = _limit(read(arguments.overrides))
    if name != "config" and is_sweep(overrides, directories, name):
        if limit or arguments.time:
            raise ConfigError(f"{limit or '--time'} works for a single run only: leave out -m and lists of values")
        experiments = compose_sweep(overrides, directories, name)
        from dstrun.report import plan

        with doing(f"counting the FLOPs of {counted(len(experiments), 'run')}"):
            from dstrun.run.plan import plan_runs, plan_sweep

            rows = plan_runs(experiments) if arguments.runs else plan_sweep(experiments)
        show([plan.runs_block(rows) if arguments.runs else Block(rows, plan.SWEEP)], arguments.format)
        return 0
    if arguments.runs:
        raise ConfigError("--runs lists the runs of a sweep: name its file with -cn")
    check_single(overrides)
    experiment = compose(overrides, directories, name)
    from dstrun.report.plan import blocks, render

    with doing("loading PyTorch, building the network"):
        from dstrun.run.plan import plan as make_plan

        made_plan = make_plan(experiment)
    if limit:
        from dstrun.run import fitting

        def again(more: Sequence[str]) -> Any:
            keys = {word.partition("=")[0] for word in more}
            kept = [word for word in overrides if word.lstrip("+").partition("=")[0] not in keys]
            return compose([*kept, *more], directories, name)

        size = fitting.parse(limit.removeprefix("fit="))
        with doing("looking for what fits"):
            made_plan["fit"] = {"limit_bytes": size, "found": fitting.fit(experiment, again, size)}
    if arguments.time:
        from dstrun.bench.hours import measure_hours

        with doing("timing a few steps"):
            made_plan["time"] = measure_hours(experiment, made_plan)
    if arguments.format in (None, "md"):
        show(blocks(made_plan), arguments.format)
    else:
        put(render(made_plan, arguments.format))
    return 0


def _limit(words: list[str]) -> tuple[list[str], str]:
    """Separate the overrides of a run from ``fit=``.

    Raises:
        ConfigError: several say so.
    """
    limits = [word for word in words if word.startswith("fit=")]
    if len(limits) > 1:
        raise ConfigError(f"{' '.join(limits)} are several limits: name one")
    return [word for word in words if word not in limits], limits[0] if limits else ""
