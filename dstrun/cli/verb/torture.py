"""``dstrun torture``: whether runs survive faults on this file system and queue."""

from __future__ import annotations

import os
from pathlib import Path

from dstrun.cli.words import parser
from dstrun.system.progress import say
from dstrun.system.trouble import ConfigError, why

HELP = {130: ("torture --results DIR", "what faults runs survive there")}


def main(words: list[str]) -> int:
    """Inject faults into small runs, compare them bit for bit with undisturbed ones, and print a page."""
    made = parser("torture", (main.__doc__ or "") + " Takes about a second a fault.", rows=False, runs=False)
    made.add_argument("words", nargs="*", metavar="KEY=VALUE", help="with --launcher slurm: hydra.launcher.KEY=VALUE")
    made.add_argument("--faults", type=int, metavar="N", help="how many (default: 200; on a queue one a run)")
    made.add_argument("--results", type=Path, default=Path("results"), help="a folder on the file system to test")
    made.add_argument("--seed", type=int, default=0, help="random seed of the faults (default: 0)")
    made.add_argument("--workers", type=int, default=1, metavar="K", help="cases in parallel (default: 1)")
    made.add_argument("--only", type=int, metavar="FAULT", help="repeat this fault, with those of its case before it")
    made.add_argument("--launcher", choices=("local", "slurm"), default="local", help="train here (default) or as jobs")
    made.add_argument("--runs", type=int, default=60, metavar="R", help="with --launcher slurm: runs (default: 60)")
    made.add_argument("--out", type=Path, action="append", default=[], metavar="FILE.md|FILE.json", help="write a page")
    arguments = made.parse_args(words)
    jobs = arguments.launcher == "slurm"
    for name, least in (("faults", 1), ("workers", 1), ("only", 0), ("runs", 1)):
        if (value := getattr(arguments, name)) is not None and value < least:
            raise ConfigError(f"--{name} {value} must be at least {least}")
    for word in arguments.words:
        if not jobs or not word.startswith("hydra.launcher."):
            raise ConfigError(f"{word} is not known here: hydra.launcher.KEY=VALUE goes with --launcher slurm")
    if jobs and (arguments.only is not None or arguments.workers != 1):
        raise ConfigError("--only and --workers need --launcher local: faults of jobs in a queue cannot be repeated")
    arguments.faults = arguments.faults or (arguments.runs if jobs else 200)
    for out in arguments.out:
        if out.suffix not in (".md", ".json"):
            raise ConfigError(f"--out {out} must end with .md or .json")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # before PyTorch: victims are forked, and threads are not
    from dstrun.system.whole import write_atomic
    from dstrun.torture import certificate
    from dstrun.torture import jobs as on_queue
    from dstrun.torture.trial import BAD, Verdict

    count = 0

    def tell(verdict: Verdict) -> None:
        nonlocal count
        count += 1
        if jobs:
            say(f"{count}: {verdict.kind} on {verdict.configuration}")
        elif arguments.only is not None or verdict.verdict in BAD:
            what = f"{verdict.kind} on {verdict.configuration}: {verdict.said}"
            say(f"{verdict.number}: {verdict.verdict}: {what}{': ' if verdict.why else ''}{verdict.why}")
        elif count % 10 == 0:
            say(f"{count} faults done")
        if arguments.only is not None and verdict.output:
            say("\n".join(f"    | {line}" for line in verdict.output.splitlines()))

    asked = arguments.faults, arguments.seed
    try:
        if jobs:
            found = on_queue.certify(arguments.results, arguments.runs, *asked, arguments.words, tell)
        else:
            found = certificate.certify(arguments.results, *asked, arguments.workers, arguments.only, tell)
    except OSError as error:
        raise ConfigError(f"--results {arguments.results} cannot be written: {why(error)}") from error
    for out in arguments.out:
        write_atomic(out, (found.json() if out.suffix == ".json" else found.page()) + "\n")
    print(found.page())
    return 0 if found.holds else 130 if len(found.verdicts) < found.asked else 1
