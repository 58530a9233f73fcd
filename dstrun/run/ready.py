"""Whether the runs of a sweep can start here: the checks of a single run, made for all before the first."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dstrun.system.trouble import ConfigError, why

if TYPE_CHECKING:
    from dstrun.config.experiment import Experiment


def check(experiments: Sequence[Experiment]) -> None:
    """Check data sets, trackers and the folders of results, each once; nothing is decoded, downloaded or written.

    Raises:
        ConfigError: in the words that a single run has.
    """
    from dstrun.tracker.protocol import mirror

    for dataset in {experiment.build("dataset"): None for experiment in experiments}:
        dataset.check()
    asked = {(name, e.config["wandb"]["mode"]): e.config for e in experiments for name in e.config["tracker"]}
    for (name, _), config in asked.items():
        mirror(name).decide(config)
    for results, experiment in {(e.config["results"], e.config["experiment"]): None for e in experiments}:
        check_results(results, experiment)
    for device in {e.config["device"]: None for e in experiments}:
        check_device(device)


def check_results(results: str, experiment: str) -> None:
    """Check that a folder can be made or written to, by a file without a name in what is there of it.

    Raises:
        ConfigError: it cannot.
    """
    folder = Path(results, experiment).absolute()
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(20, os.strerror(20))
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"results={results} cannot be written: {why(error)}") from error


def check_device(device: str) -> None:
    """Check what can be known of a device without PyTorch; a SLURM job finds its own where it runs.

    Raises:
        ConfigError: it is not there.
    """
    if device == "mps" and sys.platform != "darwin":
        raise ConfigError("device=mps is not available: this machine is not a Mac")
