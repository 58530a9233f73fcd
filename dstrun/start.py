"""What a command line without a verb starts: one run, or a sweep. Imports torch only inside a run."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from dstrun.option import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dstrun.config import Experiment
    from dstrun.launcher.task import Ending


def sweep(overrides: list[str], directories: list[str], name: str) -> int:
    """Run a sweep by Hydra's sweeper and launcher, and tell how every run ended."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from dstrun import config
    from dstrun.launcher.sweep import summarize

    check_sweeper(overrides)
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

    from dstrun import config  # and the schema, which every composition needs
    from dstrun.override import parse, with_protocol, without_nulls

    config.register_plugins()
    flags, overrides = split_flags(words)
    resolved = without_nulls(overrides)
    if any(word.startswith("protocol=") for word in resolved):
        with config.hydra_open([flags.config_dir] if flags.config_dir else []):
            resolved = with_protocol(parse(resolved))
    sys.argv = ["dstrun", *(word for word in words if word not in overrides), *resolved]
    hydra.main(config_path="pkg://dstrun.conf", config_name="config", version_base="1.3")(job)()
    return 0


def job(composed: DictConfig) -> Ending:
    """Train one run of a sweep for a launcher of another library; a failure is on record and stops no other."""
    from hydra.core.hydra_config import HydraConfig

    from dstrun import config
    from dstrun.launcher.task import Exit, Task
    from dstrun.override import parse, texts

    hydra = HydraConfig.get()
    words = tuple(hydra.overrides.task)
    task = Task(config.experiment(composed, hydra.runtime.choices, words, texts(parse(words))))
    if task.experiment.config["retry"] or task.experiment.config["fail_fast"]:
        raise ConfigError("retry and fail_fast need hydra/launcher=local or slurm")
    if run_one(task.experiment) == 130:
        raise KeyboardInterrupt
    return task.end(Exit("busy"))
