"""``dstrun plot``: a figure of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dstrun.cli.flags import a_path
from dstrun.cli.words import RUNS, found_runs, nothing, parser
from dstrun.system.progress import say
from dstrun.system.safe import put
from dstrun.system.trouble import ConfigError

HELP = {
    50: ("plot curves results --out FILE", "a figure; also sparsity, flops, ..."),
    70: ("plot bench FILE.csv", "a figure of what bench measured"),
}


def main(words: list[str]) -> int:
    """Draw a figure of finished runs."""
    from dstrun.report import figure

    made = parser("plot", "Draw a figure.", rows=False, runs=False)
    kinds = [*figure.PRESETS, "bench"]
    made.add_argument(
        "preset", choices=kinds, metavar="KIND", help=f"which figure (docs/reports.md): {', '.join(kinds)}"
    )
    made.add_argument(
        "which", nargs="*", metavar="RESULTS|where=",
        help=f"{RUNS}; for bench the file that dstrun bench has written",
    )  # fmt: skip
    made.add_argument(
        "--out", type=a_path, action="append",
        help="file ending in .png, .pdf or .svg (default: KIND.png); more than once for several",
    )  # fmt: skip
    arguments = made.parse_intermixed_args(words)
    if arguments.preset == "bench":
        return plot_bench([Path(file) for file in arguments.which], arguments.out)
    preset, out = figure.PRESETS[arguments.preset], arguments.out or [Path(f"{arguments.preset}.png")]
    runs = found_runs(arguments.which)
    if figure.save(lambda: preset.draw(runs), *out) is None:
        return nothing(arguments.which, preset.needs)
    put("\n".join(map(str, out)))
    say(preset.caption)
    return 0


def plot_bench(files: Sequence[Path], out: Sequence[Path] | None) -> int:
    """Draw a figure of what ``dstrun bench`` has measured."""
    from dstrun.report import bench

    if len(files) != 1 or files[0].suffix != ".csv":
        raise ConfigError("plot bench takes one file that dstrun bench has written, such as results/bench/kernel.csv")
    rows = bench.read(files[0])
    out = out or [Path(f"bench-{files[0].stem}.png")]
    if bench.plot(rows, *out) is None:
        return nothing(files, "measurement")
    put("\n".join(map(str, out)))
    return 0
