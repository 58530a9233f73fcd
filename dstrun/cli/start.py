"""What a command line without a verb starts: one run, or a sweep. Imports torch only inside a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dstrun.cli.verb import VERBS
from dstrun.config.option import nearest
from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

    from dstrun.config.experiment import Experiment
    from dstrun.launcher.task import Ending


def sweep(overrides: list[str], directories: list[str], name: str) -> int:
    """Run a sweep by Hydra's sweeper and launcher, and tell how every run ended."""
    from dstrun.config.composition import compose_sweep, hydra_open
    from dstrun.config.diagnose import FAULTS, told
    from dstrun.launcher.sweep import summarize
    from dstrun.run.ready import check

    check_sweeper(overrides)
    check(compose_sweep(overrides, directories, name))  # before Hydra makes the first folder
    silence_allocator()
    with hydra_open(directories):
        try:
            batches = hydra_here().multirun(name, job, overrides, with_log_configuration=False)
        except FAULTS as error:
            if isinstance(error, ConfigError) or type(error).__module__.startswith(("hydra", "omegaconf")):
                raise told(error) from error
            raise
    return summarize([returned.return_value for batch in batches for returned in batch])


def hydra_here() -> Any:
    """Return Hydra where it is open."""
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra


def check_sweeper(overrides: list[str]) -> None:
    """Refuse sweepers that choose values by the results of earlier runs.

    Raises:
        ConfigError: another is named than the one that trains grids.
    """
    for word in overrides:
        key, _, value = word.partition("=")
        if key.lstrip("+~") == "hydra/sweeper" and value not in ("grids", "basic"):
            raise ConfigError(
                f"{word} is not known: a sweep trains grids; list its values, as in optimizer.lr=0.01,0.1"
            )


def run_one(experiment: Experiment) -> int:
    """Run one configuration and tell how it ended."""
    silence_allocator()
    from dstrun.run.lifecycle import report, run

    return report(run(experiment))


def silence_allocator() -> None:
    """Keep PyTorch's allocator from warning whenever the profiler is used; before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def of_file(flags: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the primary configuration that ``-cn`` names, and the folders of ``--config-dir``.

    Raises:
        ConfigError: there is no such configuration, or no such folder.
    """
    from dstrun.config import own
    from dstrun.config.grid import check_name

    directories = own.folders(flags.config_dir)
    if flags.config_name == "":
        raise ConfigError("-cn is empty: name a sweep file; dstrun --help lists those that are shipped")
    name = (flags.config_name or "config").removesuffix(".yaml")
    if name != "config":
        check_name(name, directories)
    return name, directories


def check_kinds(words: Sequence[str]) -> None:
    """Check that words are settings, or at least look like them.

    Raises:
        ConfigError: one is a verb, or nothing that is known.
    """
    for word in words:
        if word in VERBS:
            raise ConfigError(f"{word} is a verb and comes first: dstrun {word} ...")
        if word.strip() and "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word} is neither a verb nor key=value{nearest(word, [*VERBS, 'help'])}")


def read(words: list[str]) -> list[str]:
    """Read words of a run as Hydra shall have them.

    Raises:
        ConfigError: one names no setting, or does nothing.
    """
    from dstrun.config import honoured
    from dstrun.config.override import parse, spelled

    for word in words:
        if not word.lstrip("+~").partition("=")[0].strip():
            raise ConfigError(f"'{word}' names no setting: write NAME=VALUE")
    found = spelled(words)
    honoured.check_words(honoured.keys(parse(found)))
    return found


def check_single(words: list[str]) -> None:
    """Check that no word is for what starts the runs of a sweep, where there is one run.

    Raises:
        ConfigError: one is.
    """
    from dstrun.config import honoured
    from dstrun.config.override import parse

    if idle := [key for key in honoured.keys(parse(words)) if key != "hydra.searchpath"]:
        raise ConfigError(f"{idle[0]} acts on sweeps alone: put -m before it")


def job(composed: DictConfig) -> Ending:
    """Train one run of a sweep for a launcher of another library; a failure is on record and stops no other."""
    from hydra.core.hydra_config import HydraConfig

    from dstrun.config import composition, source
    from dstrun.config.composition import repeatable
    from dstrun.config.override import parse, texts
    from dstrun.launcher.task import Exit, Task

    hydra = HydraConfig.get()
    words = tuple(hydra.overrides.task)
    found = composition.experiment(composed, hydra.runtime.choices, words, texts(parse(words)))
    every, name = [*hydra.overrides.hydra, *words], str(hydra.job.config_name)
    task = Task(repeatable(found, parse(every), name, source.composed(every, name).values()))
    if task.experiment.config["retry"] or task.experiment.config["fail_fast"]:
        raise ConfigError("retry and fail_fast need hydra/launcher=local or slurm")
    if run_one(task.experiment) == 130:
        raise KeyboardInterrupt
    return task.end(Exit("busy"))
