"""``dstrun plot``: a figure of a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dstrun.cli.flags import a_path
from dstrun.cli.words import RUNS, found_runs, key_names, nothing, parser
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
    from dstrun.report.figure.asked import COLUMNS

    made = parser("plot", "Draw a figure.", rows=False, runs=False)
    kinds = [*figure.PRESETS, "bench"]
    made.add_argument(
        "preset", choices=kinds, metavar="KIND", help=f"which figure (docs/reports.md): {', '.join(kinds)}"
    )
    made.add_argument(
        "which", nargs="*", metavar="RESULTS|where=",
        help=f"{RUNS}; for bench the files that dstrun bench has written",
    )  # fmt: skip
    made.add_argument(
        "--out", type=a_path, action="append",
        help="file ending in .png, .pdf or .svg (default: KIND.png), replaced if there; more than once for several",
    )  # fmt: skip
    made.add_argument("--title", default="", help="title of the figure")
    made.add_argument("--names", metavar="KEY=NAME,...", help="names in place of keys, as gse=Ours,rigl=RigL")
    made.add_argument("--width", type=float, metavar="INCHES", help="width (default: 3.3, or 6.8 with several panels)")
    made.add_argument("--ylim", metavar="LOW,HIGH", help="limits of the vertical axis")
    made.add_argument("--columns", type=int, choices=COLUMNS, metavar="N", help="panels side by side, 1 to 8")
    given = made.parse_intermixed_args(words)
    asked = figure.Asked(given.title, key_names(given.names) or {}, given.width, limits(given.ylim), given.columns)
    if given.preset == "bench":
        return plot_bench([Path(file) for file in given.which], given.out, asked)
    preset, out = figure.PRESETS[given.preset], given.out or [Path(f"{given.preset}.png")]
    runs = found_runs(given.which)
    drawn = _save(lambda: preset.draw(runs), out, asked)
    if drawn is None:
        return nothing(given.which, preset.needs)
    say(figure.caption(preset, drawn, asked))
    return 0


def plot_bench(files: Sequence[Path], out: Sequence[Path] | None, asked: object = None) -> int:
    """Draw a figure of what ``dstrun bench`` has measured: the rows of one bench, from a file or several."""
    from dstrun.bench import result
    from dstrun.report import bench
    from dstrun.report.figure import Asked

    rows = result.measured(files)
    out = out or [Path(f"bench-{files[0].stem}.png")]
    asked = asked if isinstance(asked, Asked) else Asked()
    return nothing(files, "measurement") if _save(bench.drawing(rows), out, asked) is None else 0


def _save(draw: Callable[[], Any], out: Sequence[Path], asked: object) -> Any:
    """Write a figure, print its files, and tell which of them were there before."""
    from dstrun.report import figure

    before = [file for file in out if file.exists()]
    with figure.asking(asked):  # type: ignore[arg-type]
        drawn = figure.written(draw, *out)
    if drawn is not None:
        put("\n".join(map(str, out)))
        if before:
            say(f"replaced {', '.join(map(str, before))}")
    return drawn


def limits(text: str | None) -> tuple[float, float] | None:
    """Read ``LOW,HIGH``.

    Raises:
        ConfigError: they are not two numbers.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--ylim {text} must be two numbers, the lower first, such as 40,60") from None
    return low, high
