"""The command line: verbs; anything else is a list of Hydra overrides and runs. Imports torch only inside a run.

Exit codes: 0 done, 1 a run failed, 2 bad usage or configuration, 3 nothing matched, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dstrun.option import ConfigError, nearest
from dstrun.progress import say

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dstrun.config import Experiment
    from dstrun.launcher.task import Ending
    from dstrun.report.load import Run

log = logging.getLogger("dstrun")

FORMATS = ("md", "csv", "json", "latex", "html")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            from dstrun.help import text

            print(text())
            return 0
        if words[0] == "--version":
            from dstrun import __version__

            print(f"dstrun {__version__}")
            return 0
        if words[0] in VERBS:
            return VERBS[words[0]](words[1:])
        return train(words)
    except ConfigError as error:
        say(f"dstrun: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def train(words: list[str]) -> int:
    """Run one configuration, or a sweep; check all of it before anything starts."""
    if "-sc" in words or "--shell-completion" in words:
        return complete(words)
    from dstrun import config

    flags, overrides = split_flags(words)
    name, directories = of_file(flags)
    if flags.cfg or flags.info or flags.hydra_help or flags.package or flags.resolve:
        return hydra_main(words)
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word} is neither a verb nor key=value{nearest(word, VERBS)}")
    if not flags.multirun and (name == "config" or not config.is_sweep(overrides, directories, name)):
        return run_one(config.compose(overrides, directories, name))
    return sweep(overrides, directories, name)


def sweep(overrides: list[str], directories: list[str], name: str) -> int:
    """Run a sweep by Hydra's sweeper and launcher, and tell how every run ended."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from dstrun import config
    from dstrun.launcher.sweep import summarize

    config.compose_sweep(overrides, directories, name)  # before Hydra makes the first folder
    silence_allocator()
    with config.hydra_open(directories):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            batches = hydra.multirun(name, job, overrides, with_log_configuration=False)
        except HydraException as error:
            raise config.told(error) from error
    return summarize([returned.return_value for batch in batches for returned in batch])


def run_one(experiment: Experiment) -> int:
    """Run one configuration and tell how it ended."""
    silence_allocator()
    from dstrun.run import report, run

    return report(run(experiment))


def silence_allocator() -> None:
    """Keep PyTorch's allocator from warning whenever the profiler is used; before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def split_flags(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Part Hydra's own flags from the overrides."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    known = parser.parse_args(words)
    return known, known.overrides


def of_file(flags: argparse.Namespace) -> tuple[str, list[str]]:
    """Give the primary configuration that ``-cn`` names, and the folders of ``--config-dir``.

    Raises:
        ConfigError: there is no such configuration.
    """
    from dstrun.grid import check_name

    directories = [flags.config_dir] if flags.config_dir else []
    name = (flags.config_name or "config").removesuffix(".yaml")
    if name != "config":
        check_name(name, directories)
    return name, directories


def refuse(message: str) -> NoReturn:
    """End argparse's complaints as every other wrong input ends."""
    raise ConfigError(message)


def hydra_main(words: list[str]) -> int:
    """Hand over to Hydra: sweeps, launchers, ``--cfg``, ``--info``, completion."""
    import hydra

    from dstrun.config import register_plugins  # and the schema, which every composition needs

    register_plugins()
    sys.argv = ["dstrun", *words]
    hydra.main(config_path="pkg://dstrun.conf", config_name="config", version_base="1.3")(job)()
    return 0


def job(composed: DictConfig) -> Ending:
    """Train one run of a sweep for a launcher of another library; a failure is on record and stops no other."""
    from hydra.core.hydra_config import HydraConfig

    from dstrun import config
    from dstrun.launcher.task import Exit, Task

    hydra = HydraConfig.get()
    task = Task(config.experiment(composed, hydra.runtime.choices, tuple(hydra.overrides.task)))
    if task.experiment.config["retry"] or task.experiment.config["fail_fast"]:
        raise ConfigError("retry and fail_fast need hydra/launcher=local or slurm")
    if run_one(task.experiment) == 130:
        raise KeyboardInterrupt
    return task.end(Exit("busy"))


def complete(words: list[str]) -> int:
    """Complete verbs, then leave the rest to Hydra's own completion."""
    line = os.environ.get("COMP_LINE", "").split(" ")
    if any(word.startswith("query=") for word in words) and len(line) > 1:
        if line[-2] in ("-cn", "--config-name"):
            from dstrun.grid import shipped

            print("\n".join(name for name in shipped() if name.startswith(line[-1])))
            return 0
        if len(line) == 2:
            print("\n".join(verb for verb in VERBS if verb.startswith(line[1])))
        if line[1] in VERBS and line[1] != "plan":
            return 0
        if line[1] == "plan":
            os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
            os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return hydra_main(words)


def parser(verb: str, description: str, *, rows: bool = True, results: bool = True) -> argparse.ArgumentParser:
    """Make a verb's parser: an optional results folder, and ``--format`` where it prints rows."""
    made = argparse.ArgumentParser(f"dstrun {verb}", description=description, allow_abbrev=False)
    made.error = refuse  # type: ignore[method-assign]
    if results:
        made.add_argument("results", nargs="*", metavar="RESULTS|where=", help=RESULTS)
    if rows:
        made.add_argument("--format", choices=FORMATS, default="md", help="how to print rows (default: md)")
    return made


RESULTS = "folders (default: results), and conditions on runs: where=method:gse,rigl where=sparsity>=0.9"
QUERY = ("where", "rows", "cols", "value")
TABLE = "where=method:gse,rigl rows=method cols=model,sparsity value=accuracy.top1; fields are settings, or record keys"


def split_query(words: Sequence[str], known: Sequence[str] = QUERY[:1]) -> tuple[list[Path], dict[str, list[str]]]:
    """Part folders from the words of a query, ``where=...``.

    Raises:
        ConfigError: a word that the verb does not take.
    """
    folders, query = [], {key: [] for key in known}
    for word in words:
        key, sign, value = word.partition("=")
        if key in known and sign:
            query[key].append(value)
        elif sign and not Path(word).exists():
            raise ConfigError(
                f"{word} is not known here: choose {', '.join(f'{k}=' for k in known)}{nearest(key, known)}"
            )
        else:
            folders.append(Path(word))
    return folders or [Path("results")], query


def found_runs(words: Sequence[str]) -> list[Run]:
    """Load the runs below folders that meet the conditions; what is damaged is said, not raised."""
    from dstrun.report import fields, load

    folders, query = split_query(words)
    runs = [run for folder in folders for run in load.runs(folder)]
    for warning in load.warnings(runs):
        log.warning("%s", warning)
    return fields.where(runs, query["where"])


def nothing(folders: Sequence[Path], what: str = "run") -> int:
    """Say that nothing was found."""
    say(f"no {what} below {', '.join(map(str, folders))}")
    return 3


def plan(words: list[str]) -> int:
    """Show layers, densities, parameters, FLOPs and predicted memory; train nothing."""
    made = parser("plan", "What a configuration would train and cost; trains nothing.", results=False)
    made.add_argument("overrides", nargs="*", help="as for a run, e.g. model=resnet50 dataset=imagenet sparsity=0.9")
    made.add_argument("-cn", "--config-name", metavar="NAME", help="a sweep file: FLOPs of all its runs")
    made.add_argument("-cd", "--config-dir", metavar="DIR", help="where your own options and sweep files are")
    arguments = made.parse_intermixed_args(words)
    overrides, name, directories = arguments.overrides, *of_file(arguments)
    from dstrun import config

    if name != "config" and config.is_sweep(overrides, directories, name):
        experiments = config.compose_sweep(overrides, directories, name)
        from dstrun.plan import plan_sweep
        from dstrun.report import format, plan

        print(format.render(plan_sweep(experiments), plan.SWEEP, arguments.format))
        return 0
    experiment = config.compose(overrides, directories, name)
    from dstrun.plan import plan as make_plan
    from dstrun.report.plan import render

    print(render(make_plan(experiment), arguments.format))
    return 0


def status(words: list[str]) -> int:
    """Show every run: state, epoch, accuracy, time left, memory."""
    from dstrun.report import format, status

    made = parser("status", "Every run: state, epoch, accuracy, time left, memory.")
    made.set_defaults(format=None)  # on a terminal, a table as wide as it
    made.add_argument("--state", help=f"only these, with commas: {', '.join(status.STATES)}")
    made.add_argument("--sort", choices=status.SORTS, help="order of rows (default: run; with --watch: state)")
    made.add_argument("--watch", action="store_true", help="follow a sweep until nothing of it is to come; q leaves")
    made.add_argument("--interval", type=float, default=5.0, help="seconds between looks with --watch (default: 5)")
    arguments = made.parse_args(words)
    if arguments.watch and arguments.format:
        raise ConfigError(f"--watch shows a table for reading, and goes with no --format {arguments.format}")
    if not arguments.interval > 0:
        raise ConfigError(f"--interval {arguments.interval:g} must be above 0")
    choose = status.chooser(arguments.state, arguments.sort or ("state" if arguments.watch else "run"))
    sweep = status.Sweep(arguments.results)
    if arguments.watch:
        from dstrun.report.watch import watch

        rows = watch(sweep, choose, arguments.interval)
        return 0 if rows else nothing(arguments.results)
    rows = sweep.rows(time.time())
    if not rows:
        return nothing(arguments.results)
    if sys.stdout.isatty() and arguments.format is None:
        from dstrun.report.watch import show

        show(choose(rows), rows)
        return 0
    print(format.render(choose(rows), status.COLUMNS, arguments.format or "md"))
    say(status.totals(rows))
    return 0


def table(words: list[str]) -> int:
    """Make a table of runs."""
    from dstrun.report import table as tables
    from dstrun.report.table.cells import Options

    made = parser("table", "Mean and deviation over seeds, cell by cell: " + TABLE)
    made.add_argument("--preset", choices=tables.PRESETS, default="accuracy", help="which table (default: accuracy)")
    made.add_argument("--runs", action="store_true", help="list the runs behind every cell")
    made.add_argument("--ci", action="store_true", help="95 %% confidence intervals in place of deviations")
    made.add_argument("--significant", action="store_true", help="bold: all not significantly worse than the best")
    made.add_argument("--against", default="", metavar="METHOD", help="the difference to it in brackets, as dense")
    made.add_argument("--published", action="store_true", help="published numbers beside ours (results/published.csv)")
    made.add_argument("--reference", action="append", default=[], metavar="FILE", help="more of them, of your own")
    made.add_argument("--digits", type=int, choices=range(7), default=1, help="decimals of accuracies (default: 1)")
    arguments = made.parse_intermixed_args(words)
    folders, query = split_query(arguments.results, QUERY)
    options = Options(
        *(",".join(query[key]) if query[key] else None for key in QUERY[1:]),
        interval=arguments.ci, significant=arguments.significant, against=arguments.against, digits=arguments.digits,
    )  # fmt: skip
    if arguments.published or arguments.reference:
        from dstrun.report.published import references

        options = replace(options, published=references(arguments.reference))
    runs = found_runs([*map(str, folders), *(f"where={condition}" for condition in query["where"])])
    built = tables.build(runs, arguments.preset, options)
    if not built.cells:
        return nothing(folders)
    print(built.render_runs(arguments.format) if arguments.runs else built.render(arguments.format))
    if arguments.format in ("csv", "json") and not arguments.runs:
        say("\n".join(built.notes))
    return 0


def plot(words: list[str]) -> int:
    """Draw a figure of finished runs."""
    from dstrun.report import plot as plots

    made = parser("plot", "Draw a figure.", rows=False, results=False)
    made.add_argument("preset", choices=[*plots.PRESETS, "bench"], help="which figure")
    made.add_argument(
        "results", nargs="*", type=Path, default=[Path("results")],
        help="folders (default: results); for bench the file that dstrun bench has written",
    )  # fmt: skip
    made.add_argument("--out", type=Path, help="file ending in .png, .pdf or .svg (default: PRESET.png)")
    arguments = made.parse_args(words)
    if arguments.preset == "bench":
        return plot_bench(arguments.results, arguments.out)
    out = arguments.out or Path(f"{arguments.preset}.png")
    if plots.PRESETS[arguments.preset](found_runs(arguments.results), out) is None:
        return nothing(arguments.results, "finished run")
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


def bench(words: list[str]) -> int:
    """Measure this machine; what has been measured is written as it comes."""
    from importlib import import_module

    from dstrun.bench import arguments

    if words and words[0] not in arguments.BENCHES and not words[0].startswith("-"):
        known = ", ".join(arguments.BENCHES)
        raise ConfigError(f"bench {words[0]} is not known: choose {known}{nearest(words[0], arguments.BENCHES)}")
    made = parser("bench", "Time dense and sparse training in turns on this machine.", rows=False, results=False)
    made.add_argument("what", choices=arguments.BENCHES, help="dstrun bench WHAT --help lists its options")
    what = made.parse_args(words[:1]).what
    made = parser(f"bench {what}", arguments.BENCHES[what].__doc__ or "", results=False)
    settings, form, out = arguments.read(what, made, words[1:])
    silence_allocator()
    from dstrun.bench import result, table
    from dstrun.report.format import render

    measured = []
    for rows in import_module(f"dstrun.bench.{what}").measure(settings):
        measured += rows
        result.write(what, measured, out)
    shown, columns, notes = table.TABLES[what](measured)
    if form in ("csv", "json"):
        shown, columns = measured, result.columns(what)
    print(render(shown, columns, form))
    say("\n".join(f"- {note}" for note in [*notes, table.where(measured)]))
    say(f"next: dstrun plot bench {out}")
    return 0


def methods(words: list[str]) -> int:
    """List every method with its paper and what it costs."""
    made = parser("methods", "Every method= with its paper, what a step costs and what it starts from.", results=False)
    arguments = made.parse_args(words)
    from dstrun import methods
    from dstrun.report.format import render

    print(render(methods.rows(methods.FITS if arguments.format == "md" else None), methods.COLUMNS, arguments.format))
    return 0


def doctor(words: list[str]) -> int:
    """Say what works on this machine."""
    arguments = parser("doctor", "What works here.", results=False).parse_args(words)
    from dstrun.doctor import examine
    from dstrun.report.format import render

    rows, columns = examine()
    print(render(rows, columns, arguments.format))
    return 1 if any(row["state"] == "broken" for row in rows) else 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "methods": methods,
    "plan": plan,
    "status": status,
    "table": table,
    "plot": plot,
    "bench": bench,
    "doctor": doctor,
}
