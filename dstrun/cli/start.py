"""What a command line without a verb starts: one run, or a sweep. Imports torch only inside a run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dstrun.cli.verb import VERBS
from dstrun.config import hint
from dstrun.config.option import GROUPS
from dstrun.system.progress import doing, say
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

    check_plugins(overrides)
    searches = any(word.endswith("hydra/sweeper=optuna") for word in overrides)
    found = search(overrides, directories, name) if searches else compose_sweep(overrides, directories, name)
    check(found)
    with hydra_open(directories):
        try:
            batches = hydra_here().multirun(name, job, overrides, with_log_configuration=False)
        except FAULTS as error:
            if searches and str(error).startswith("No trials are completed"):
                say(f"no trial has finished: dstrun status {results_of(found[0])} shows why")
                return 1
            if isinstance(error, ConfigError) or type(error).__module__.startswith(("hydra", "omegaconf")):
                raise told(error) from error
            raise
    if searches:  # whose sweeper returns nothing
        say(f"the best is in {results_of(found[0])}/optimization_results.yaml")
        say(f"next: dstrun table {results_of(found[0])}")
        return 0
    return summarize([returned.return_value for batch in batches for returned in batch])


def results_of(experiment: Experiment) -> str:
    """Return where runs go, as a word of the shell."""
    return shlex.quote(f"{experiment.config['results']}/{experiment.config['experiment']}")


def search(overrides: list[str], directories: list[str], name: str) -> list[Experiment]:
    """Return what all trials of a search have in common.

    Raises:
        ConfigError: it cannot be run, or would choose by the test images, or the worst.
    """
    from dstrun.config.composition import compose
    from dstrun.config.override import parse

    if find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        raise ConfigError("hydra/sweeper=optuna is not installed: pip install hydra-optuna-sweeper")
    parsed = parse(overrides)
    values = {o.get_key_element(): o.value() for o in parsed if not o.is_sweep_override()}
    if values.get("hydra.sweeper.direction") != "maximize":
        raise ConfigError("hydra/sweeper=optuna needs hydra.sweeper.direction=maximize: its objective is an accuracy")
    found = compose([o.input_line or "" for o in parsed if not o.is_sweep_override()], directories, name)
    if not found.build("dataset").validation:
        raise ConfigError(
            "hydra/sweeper=optuna optimizes the accuracy on validation images: set dataset.validation=N to "
            "hold out N training images"
        )
    return [found]


def hydra_here() -> Any:
    """Return Hydra where it is open."""
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra


def check_plugins(overrides: list[str]) -> None:
    """Refuse sweepers and launchers of others that runs do not go with.

    Raises:
        ConfigError: one is named.
    """
    for word in overrides:
        key, _, value = word.partition("=")
        if key.lstrip("+~") == "hydra/sweeper" and value not in ("grids", "basic", "optuna"):
            raise ConfigError(
                f"{word} is not known: choose grids, which trains every combination of listed values, or optuna"
            )
        if key.lstrip("+~") == "hydra/launcher" and value == "joblib":
            raise ConfigError(f"{word} is not supported: hydra.launcher.workers=N trains N runs at once")


def run_one(experiment: Experiment) -> int:
    """Run one configuration and tell how it ended."""
    with doing("loading PyTorch"):
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
        raise ConfigError("-cn is empty: name a sweep file; dstrun help sweeps lists those that are shipped")
    name = (flags.config_name or "config").removesuffix(".yaml")
    if name != "config":
        check_name(name, directories)
    return name, directories


def check_kinds(words: Sequence[str]) -> None:
    """Check that words are settings, or at least look like them.

    Raises:
        ConfigError: one is a verb, or nothing that is known.
    """
    if len(words) > 1:
        _check_spaces(words)
    for word in words:
        if word in VERBS:
            raise ConfigError(f"{word} is a command and comes first: dstrun {word} ...")
        if word.strip() and "=" not in word and not word.startswith("~"):
            from dstrun.cli.help import options

            groups = {group: options(group) for group in (*GROUPS, "protocol")}
            raise ConfigError(f"{word} is neither a command nor key=value{hint.verb(word, VERBS, groups)}")


def _check_spaces(words: Sequence[str]) -> None:
    """Check that no spaces stand around a ``=``.

    Raises:
        ConfigError: there are some.
    """
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        left = before if word.startswith("=") and before and "=" not in before else ""
        right = after if word.endswith("=") and after and "=" not in after and after not in VERBS else ""
        if left or right:
            spaced = " ".join(part for part in (left, word, right) if part)
            raise ConfigError(f"{spaced} has spaces around =: write {spaced.replace(' ', '')}")


def read(words: list[str]) -> list[str]:
    """Read words of a run as Hydra shall have them.

    Raises:
        ConfigError: one names no setting, or does nothing.
    """
    from dstrun.config import honoured
    from dstrun.config.override import check_deleted, parse, spelled

    for word in words:
        if not word.lstrip("+~").partition("=")[0].strip():
            raise ConfigError(f"'{word}' names no setting: write NAME=VALUE")
    found = spelled(words)
    overrides = parse(found)
    honoured.check_words(honoured.keys(overrides))
    check_deleted(overrides)
    return found


def check_single(words: list[str]) -> None:
    """Check that no word is for what starts the runs of a sweep, where there is one run.

    Raises:
        ConfigError: one is.
    """
    from dstrun.config import honoured
    from dstrun.config.override import parse

    if idle := [key for key in honoured.keys(parse(words)) if key != "hydra.searchpath"]:
        raise ConfigError(f"{idle[0]} only applies to sweeps: put -m before it")


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
