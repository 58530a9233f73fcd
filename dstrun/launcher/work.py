"""What one process of a sweep does: train one run, its words in the run's log."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dstrun.config import Experiment
from dstrun.launcher.task import BUSY_CODE
from dstrun.option import ConfigError
from dstrun.progress import say
from dstrun.record.folder import RunFolder
from dstrun.record.lock import Busy
from dstrun.record.writer import write_atomic
from dstrun.run import report, run
from dstrun.safe import log_to_stderr, without_secrets


def work(experiment: Experiment, threads: int | None = None) -> int:
    """Train a run; what it prints goes to ``log.txt`` in its folder.

    Args:
        experiment: composed and checked.
        threads: CPU threads, where the configuration leaves them open.

    Returns:
        The exit code: 0 done, 1 failed, 2 refused, 75 another process works on it, 130 interrupted.
    """
    folder = RunFolder(experiment.config, experiment.choices)
    if int(os.environ.get("SLURM_PROCID", 0)) == 0:
        print_to(folder.path / "log.txt")
    log_to_stderr()
    logging.getLogger("submitit").propagate = False  # it prints by itself
    if experiment.config["threads"] is None:
        experiment = replace(experiment, config={**experiment.config, "threads": threads})
    try:
        outcome = run(experiment)
    except Exception as error:  # before training, which tells of its own
        refused = isinstance(error, ConfigError)
        say(f"dstrun: {error}" if refused else traceback.format_exc())
        with suppress(Busy), folder.owned():
            if not refused:
                write_atomic(folder.path / "error.txt", without_secrets(traceback.format_exc()))
            folder.status(state="failed", message=str(error) if refused else f"{type(error).__name__}: {error}")
        return 2 if refused else 1
    code = report(outcome)
    return BUSY_CODE if outcome.state == "busy" else code


def print_to(log: Path) -> None:
    """Send what this process and those it starts print to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | os.O_NONBLOCK, 0o666)
    os.set_blocking(number, True)
    with open(number, "a") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
