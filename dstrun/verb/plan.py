"""``dstrun plan``: what a configuration would train and cost."""

from __future__ import annotations

from dstrun.safe import put
from dstrun.start import check_single, of_file, read
from dstrun.verb.words import parser


def main(words: list[str]) -> int:
    """Show layers, densities, parameters, FLOPs and predicted memory; train nothing."""
    made = parser("plan", "What a configuration would train and cost; trains nothing.", runs=False)
    made.add_argument("overrides", nargs="*", help="as for a run, e.g. model=resnet50 dataset=imagenet sparsity=0.9")
    made.add_argument("-cn", "--config-name", metavar="NAME", help="a sweep file: FLOPs of all its runs")
    made.add_argument(
        "-cd", "--config-dir", metavar="DIR", action="append", default=[],
        help="where your own options and sweep files are",
    )  # fmt: skip
    arguments = made.parse_intermixed_args(words)
    name, directories = of_file(arguments)
    from dstrun import config

    overrides = read(arguments.overrides)
    if name != "config" and config.is_sweep(overrides, directories, name):
        experiments = config.compose_sweep(overrides, directories, name)
        from dstrun.plan import plan_sweep
        from dstrun.report import format, plan

        put(format.render(plan_sweep(experiments), plan.SWEEP, arguments.format))
        return 0
    check_single(overrides)
    experiment = config.compose(overrides, directories, name)
    from dstrun.plan import plan as make_plan
    from dstrun.report.plan import render

    put(render(make_plan(experiment), arguments.format))
    return 0
