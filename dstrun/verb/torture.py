"""``dstrun torture``: whether runs survive what may happen to them, on this file system and queue."""

from __future__ import annotations

import os
from pathlib import Path

from dstrun.option import ConfigError
from dstrun.progress import say
from dstrun.start import silence_allocator
from dstrun.trouble import why
from dstrun.verb.words import parser


def main(words: list[str]) -> int:
    """Inject faults into small runs, compare them bit for bit with undisturbed ones, and print a page."""
    made = parser("torture", (main.__doc__ or "") + " Takes about a second a fault.", rows=False, runs=False)
    made.add_argument("--faults", type=int, default=200, metavar="N", help="how many (default: 200)")
    made.add_argument("--results", type=Path, default=Path("results"), help="a folder on the file system to be tried")
    made.add_argument("--seed", type=int, default=0, help="draws the faults (default: 0)")
    made.add_argument("--workers", type=int, default=1, metavar="K", help="cases at once (default: 1)")
    made.add_argument("--only", type=int, metavar="FAULT", help="repeat this fault, with those of its case before it")
    made.add_argument("--out", type=Path, action="append", default=[], metavar="FILE.md|FILE.json", help="write a page")
    arguments = made.parse_args(words)
    for name, least in (("faults", 1), ("workers", 1), ("only", 0)):
        if (value := getattr(arguments, name)) is not None and value < least:
            raise ConfigError(f"--{name} {value} must be at least {least}")
    for out in arguments.out:
        if out.suffix not in (".md", ".json"):
            raise ConfigError(f"--out {out} must end with .md or .json")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # before PyTorch: victims are forked, and threads are not
    silence_allocator()
    from dstrun.record.writer import write_atomic
    from dstrun.torture.certificate import certify
    from dstrun.torture.trial import BAD, Verdict

    count = 0

    def tell(verdict: Verdict) -> None:
        nonlocal count
        count += 1
        if arguments.only is not None or verdict.verdict in BAD:
            what = f"{verdict.kind} on {verdict.configuration}: {verdict.said}"
            say(f"{verdict.number}: {verdict.verdict}: {what}{': ' if verdict.why else ''}{verdict.why}")
        elif count % 10 == 0:
            say(f"{count} faults done")
        if arguments.only is not None and verdict.output:
            say("\n".join(f"    | {line}" for line in verdict.output.splitlines()))

    asked = arguments.faults, arguments.seed, arguments.workers, arguments.only
    try:
        found = certify(arguments.results, *asked, tell=tell)
    except OSError as error:
        raise ConfigError(f"--results {arguments.results} cannot be written: {why(error)}") from error
    for out in arguments.out:
        write_atomic(out, (found.json() if out.suffix == ".json" else found.page()) + "\n")
    print(found.page())
    return 0 if found.holds else 130 if len(found.verdicts) < found.asked else 1
