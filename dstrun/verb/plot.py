"""``dstrun plot``: a figure of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dstrun.option import ConfigError
from dstrun.verb.words import RUNS, found_runs, nothing, parser


def main(words: list[str]) -> int:
    """Draw a figure of finished runs."""
    from dstrun.report import plot as plots

    made = parser("plot", "Draw a figure.", rows=False, runs=False)
    made.add_argument("preset", choices=[*plots.PRESETS, "bench"], help="which figure")
    made.add_argument(
        "runs", nargs="*", metavar="RESULTS|where=",
        help=f"{RUNS}; for bench the file that dstrun bench has written",
    )  # fmt: skip
    made.add_argument("--out", type=Path, help="file ending in .png, .pdf or .svg (default: PRESET.png)")
    arguments = made.parse_intermixed_args(words)
    if arguments.preset == "bench":
        return plot_bench([Path(word) for word in arguments.runs], arguments.out)
    out = arguments.out or Path(f"{arguments.preset}.png")
    if plots.PRESETS[arguments.preset](found_runs(arguments.runs), out) is None:
        return nothing(arguments.runs, "finished run")
    print(out)
    return 0


def plot_bench(files: Sequence[Path], out: Path | None) -> int:
    """Draw a figure of what ``dstrun bench`` has measured."""
    from dstrun.report import bench

    if len(files) != 1 or files[0].suffix != ".csv":
        raise ConfigError("plot bench takes one file that dstrun bench has written, such as results/bench/kernel.csv")
    rows = bench.read(files[0])
    out = out or Path(f"bench-{files[0].stem}.png")
    if bench.plot(rows, out) is None:
        return nothing(files, "measurement")
    print(out)
    return 0
